//! What timm and Hugging Face publish about the pictures of their models.

use lara_models::data::ImageShape;
use lara_models::data::picture::{Interpolation, Middle, Picture, Preprocess, Scale};
use lara_models::train::checkpoint::TrainedModel;
use serde_json::{Value, json};

use crate::library::golden;

const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

fn square(size: usize) -> ImageShape {
    ImageShape { channels: 3, height: size, width: size }
}

fn statistics(fit: &Preprocess) -> [&[f64]; 2] {
    [&fit.mean, &fit.std]
}

/// pretrained_cfg of deit_tiny_patch16_224.fb_in1k.
fn deit_tiny() -> Value {
    json!({
        "architecture": "deit_tiny_patch16_224",
        "pretrained_cfg": {
            "tag": "fb_in1k", "input_size": [3, 224, 224], "fixed_input_size": true, "interpolation": "bicubic",
            "crop_pct": 0.9, "crop_mode": "center", "mean": IMAGENET[0], "std": IMAGENET[1], "num_classes": 1000
        }
    })
}

#[test]
fn timms_settings_say_how_pictures_are_fitted() {
    let fit = Preprocess::from_timm(&deit_tiny(), None).unwrap();
    assert_eq!((fit.shape, fit.scale, fit.interpolation), (square(224), Scale::Shorter(248), Interpolation::Bicubic));
    assert_eq!(statistics(&fit), [&IMAGENET[0][..], &IMAGENET[1]]);
    // Old files are flat; what they do not say is timm's default.
    assert_eq!(Preprocess::from_timm(&deit_tiny()["pretrained_cfg"], None).unwrap(), fit);
    let plain = Preprocess::from_timm(&json!({}), None).unwrap();
    assert_eq!((plain.shape, plain.scale, plain.interpolation), (square(224), Scale::Shorter(256), fit.interpolation));
    assert_eq!(statistics(&plain), statistics(&fit));
    // 384 / 0.9 at another size.
    assert_eq!(Preprocess::from_timm(&deit_tiny(), Some(square(384))).unwrap().scale, Scale::Shorter(426));
    let squash =
        json!({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "lanczos"});
    let squash = Preprocess::from_timm(&squash, None).unwrap();
    assert_eq!((squash.scale, squash.interpolation), (Scale::Exactly([384; 2]), Interpolation::Lanczos));
    // timm resizes for other shapes than squares bilinearly, whatever the setting.
    let wide = Preprocess::from_timm(&json!({"input_size": [3, 128, 256], "crop_pct": 1}), None).unwrap();
    assert_eq!((wide.scale, wide.interpolation), (Scale::Cover([128, 256]), Interpolation::Bilinear));
    let seen = wide.fit(Picture::new(300, 90, 3, vec![9; 300 * 90 * 3]).unwrap()).unwrap();
    assert_eq!((seen.width(), seen.height()), (256, 128));
    // One channel under the mean of three.
    let grey = Preprocess::from_timm(&json!({"input_size": [1, 28, 28], "mean": [0.1, 0.2, 0.3]}), None).unwrap();
    assert!((grey.mean[0] - 0.2).abs() < 1e-12 && grey.mean.len() == 1);
}

#[test]
fn hugging_faces_files_say_how_pictures_are_fitted() {
    let of = |settings: Value| Preprocess::from_hugging_face(&settings, None).unwrap();
    // google/vit-base-patch16-224
    let vit = of(json!({
        "do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 224
    }));
    assert_eq!((vit.shape, vit.scale), (square(224), Scale::Exactly([224; 2])));
    assert_eq!((vit.interpolation, vit.middle), (Interpolation::Bilinear, Middle::First));
    assert_eq!(statistics(&vit), [[0.5; 3]; 2]);
    // facebook/deit-base-distilled-patch16-224
    let deit = of(json!({
        "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "DeiTFeatureExtractor", "image_mean": IMAGENET[0], "image_std": IMAGENET[1],
        "resample": 3, "size": 256
    }));
    assert_eq!((deit.shape, deit.scale), (square(224), Scale::Exactly([256; 2])));
    assert_eq!((deit.interpolation, statistics(&deit)[0]), (Interpolation::Bicubic, &IMAGENET[0][..]));
    // facebook/dinov2-small-imagenet1k-1-layer
    let dino = json!({
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": IMAGENET[0], "image_processor_type": "BitImageProcessor",
        "image_std": IMAGENET[1], "resample": 3, "rescale_factor": 0.003_921_568_627_450_98,
        "size": {"shortest_edge": 256}
    });
    let dino_fit = of(dino.clone());
    assert_eq!((dino_fit.shape, dino_fit.scale), (square(224), Scale::Shorter(256)));
    assert_eq!(statistics(&dino_fit), [&IMAGENET[0][..], &IMAGENET[1]]);
    // One number is the shorter side for some processors, both sides for others.
    let clip = json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3});
    assert_eq!(of(clip).scale, Scale::Shorter(224));
    // At another size everything grows in proportion.
    let large = Preprocess::from_hugging_face(&dino, Some(square(448))).unwrap();
    assert_eq!((large.shape, large.scale), (square(448), Scale::Shorter(512)));
    // Bytes that are not divided by 255, and values that are not normalised.
    let raw = of(json!({"do_rescale": false, "image_mean": [127.5], "image_std": [127.5], "size": 8}));
    assert_eq!(statistics(&raw), [[0.5], [0.5]]);
    let unchanged = of(json!({"do_normalize": false, "size": {"height": 8, "width": 12}, "resample": 0}));
    assert_eq!(statistics(&unchanged), [[0.0], [1.0]]);
    assert_eq!(
        (unchanged.shape.height, unchanged.shape.width, unchanged.interpolation),
        (8, 12, Interpolation::Nearest)
    );
}

/// Where torchvision takes the even one of two middles, Hugging Face takes the first, and pads before.
#[test]
fn the_two_libraries_cut_at_different_middles() {
    let columns = Picture::new(7, 4, 1, [0, 10, 20, 30, 40, 50, 60].repeat(4)).unwrap();
    let of = |middle| {
        let shape = ImageShape { channels: 1, height: 4, width: 4 };
        let fit = Preprocess::timm(shape, 1.0, Default::default(), Interpolation::Bicubic);
        let seen = Preprocess { middle, ..fit }.fit(columns.clone()).unwrap();
        seen.pixels()[..4].to_vec()
    };
    assert_eq!(of(Middle::Even), [20, 30, 40, 50]);
    assert_eq!(of(Middle::First), [10, 20, 30, 40]);
    let padded = |middle| {
        let shape = ImageShape { channels: 1, height: 4, width: 10 };
        let fit = Preprocess::timm(shape, 1.0, Default::default(), Interpolation::Bicubic);
        let seen = Preprocess { scale: Scale::Keep, middle, ..fit }.fit(columns.clone()).unwrap();
        seen.pixels()[..10].to_vec()
    };
    assert_eq!(padded(Middle::Even), [0, 0, 10, 20, 30, 40, 50, 60, 0, 0]);
    assert_eq!(padded(Middle::First), [0, 0, 0, 10, 20, 30, 40, 50, 60, 0]);
}

/// A model of the hub, opened as a checkpoint is, fits pictures as its files say: settings say the same.
#[test]
fn a_model_of_the_hub_fits_pictures_as_it_was_published() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("hf_vit").join(name), temp.path().join(name)).unwrap();
    }
    let opened = |settings: Value| {
        std::fs::write(temp.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
        let config = TrainedModel::open(temp.path()).unwrap().config.unwrap();
        let published = Preprocess::from_hugging_face(&settings, Some(config.model.image_shape())).unwrap();
        assert_eq!(config.preprocess().unwrap(), published);
        published
    };
    let side = TrainedModel::open(golden("hf_vit")).unwrap().config.unwrap().model.image_shape().height;
    let statistics = |more: Value| {
        let mut settings = json!({"image_mean": IMAGENET[0], "image_std": IMAGENET[1], "resample": 1});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    assert_eq!(opened(statistics(json!({"size": side}))).scale, Scale::Exactly([side as u64; 2]));
    for before in side..4 * side {
        let size = json!({
            "image_processor_type": "BitImageProcessor", "do_center_crop": true, "crop_size": side,
            "size": {"shortest_edge": before}
        });
        assert_eq!(opened(statistics(size)).scale, Scale::Shorter(before as u64));
    }
}

#[test]
fn settings_that_make_no_sense_are_told_by_name() {
    let timm = |settings: Value| Preprocess::from_timm(&settings, None).unwrap_err().to_string();
    assert_eq!(
        timm(json!({"crop_mode": "sqash"})),
        "crop_mode of pretrained_cfg is \"sqash\"; it must be one of center, squash, border (is squash meant?)"
    );
    assert_eq!(
        timm(json!({"crop_pct": 1.5})),
        "crop_pct of pretrained_cfg is 1.5; it must be a number above 0 and at most 1"
    );
    assert_eq!(
        timm(json!({"input_size": [224, 224]})),
        "input_size of pretrained_cfg is [224,224]; it must be three numbers: channels, rows, columns"
    );
    assert_eq!(
        timm(json!({"std": [0, 0, 0]})),
        "data.std = [0.0, 0.0, 0.0] must hold finite numbers, and only such above 0"
    );
    let hub = |settings: Value| Preprocess::from_hugging_face(&settings, None).unwrap_err().to_string();
    assert_eq!(
        hub(json!({"resample": 7})),
        "resample of preprocessor_config.json is 7; it must be a number that Pillow has for a filter, 0 to 5"
    );
    assert_eq!(
        hub(json!({"size": {"longest_edge": 224}})),
        "size of preprocessor_config.json is {\"longest_edge\":224}; it must be a number, {height, width} or \
         {shortest_edge}, in pixels"
    );
    assert_eq!(
        hub(json!({"rescale_factor": 0})),
        "rescale_factor of preprocessor_config.json is 0; it must be a number above 0 (1/255 is usual)"
    );
}
