//! Models of other libraries as they come: wrapped, for other sizes of images, with settings and tensors that do not fit.

use std::fs;
use std::path::Path;

use lara_models::data::picture::Scale;
use lara_models::import::positions::Resampling;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::{Metadata, TensorFile};
use lara_models::{Model, ModelConfig};
use lara_runtime::{Tune, Variant};
use lara_tests::adapter;
use pollster::block_on;
use serde_json::{Value, json};

use crate::cli::{lara, output, refusal};
use crate::library::{golden, write_tensors};

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// All tensors of a golden model.
fn tensors(name: &str) -> Tensors {
    let file = TensorFile::open(golden(name).join("model.safetensors")).unwrap();
    contents(&file)
}

fn contents(file: &TensorFile) -> Tensors {
    let tensor = |name: &str| {
        let (shape, values) = file.numbers(name).unwrap();
        (name.to_owned(), shape, values)
    };
    file.names().map(tensor).collect()
}

fn config(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(golden(name).join("config.json")).unwrap()).unwrap()
}

/// A golden model in a folder, with some things changed.
fn changed(folder: &Path, name: &str, change: impl FnOnce(&mut Tensors, &mut Value)) {
    let (mut tensors, mut config) = (tensors(name), config(name));
    change(&mut tensors, &mut config);
    write_tensors(folder, &tensors, &Metadata::new());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn opened(folder: &Path) -> TrainedModel {
    TrainedModel::open(folder).unwrap_or_else(|e| panic!("{e}"))
}

fn said(folder: &Path) -> String {
    let said = TrainedModel::open(folder).expect_err("a refusal").to_string();
    assert!(!said.contains('\n'), "{said}");
    said
}

fn logits(trained: TrainedModel, images: &[f32], batch: usize) -> Vec<f32> {
    let tune = Tune::fixed(&[Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS, Variant::SLABS]);
    let model = Model::from_trained("model", trained).unwrap_or_else(|e| panic!("{e}"));
    let predictor = block_on(model.predictor(adapter(), &tune, batch)).unwrap_or_else(|e| panic!("{e}"));
    block_on(predictor.logits(images)).unwrap().concat()
}

/// What PyTorch's wrappers put in front of names goes, whoever's model it is; a tensor that is there twice is told.
#[test]
fn wrapped_models_are_what_they_wrap() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["timm_vit_token", "hf_vit", "hkunlp_evit_lara", "hkunlp_evit_performer", "hkunlp_pvt_lara_light"] {
        let plain = TrainedModel::open(golden(name)).unwrap();
        for prefix in ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."] {
            changed(temp.path(), name, |tensors, _| {
                tensors.iter_mut().for_each(|(name, ..)| name.insert_str(0, prefix));
            });
            let wrapped = opened(temp.path());
            assert_eq!(wrapped.config, plain.config, "{name} {prefix}");
            assert!(contents(&wrapped.weights) == contents(&plain.weights), "{name} {prefix}");
        }
    }
    changed(temp.path(), "timm_vit_token", |tensors, _| {
        let (name, shape, values) = tensors[3].clone();
        tensors.push((format!("module.{name}"), shape, values));
    });
    let name = tensors("timm_vit_token")[3].0.clone();
    let expected = format!("has both {name} and module.{name}, which are two names of {name}; leave one of them out");
    assert!(said(temp.path()).contains(&expected), "{}", said(temp.path()));
    changed(temp.path(), "timm_vit_layer_scale_registers", |tensors, _| {
        tensors.push(("register_tokens".into(), vec![1, 4, 48], vec![0.0; 192]));
    });
    assert!(said(temp.path()).contains("two names of reg_token"), "{}", said(temp.path()));
}

/// Settings of another kind, or under another name, or for another model, are told and not passed over.
#[test]
fn settings_that_do_not_fit_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let said = |name: &str, change: &dyn Fn(&mut Value)| {
        changed(temp.path(), name, |_, config| change(config));
        said(temp.path())
    };
    for (key, value) in [("model_args", json!(5)), ("pretrained_cfg", json!([1])), ("model_args", json!("none"))] {
        let said = said("timm_vit_token", &|config| config[key] = value.clone());
        assert!(said.contains(&format!("has {key} = {value}, where an object is expected")), "{said}");
    }
    let map = said("timm_vit_token", &|config| config["model_args"]["global_pool"] = "map".into());
    assert!(map.contains("has global_pool = \"map\", pooling by an attention of its own"), "{map}");
    let map = said("timm_vit_token", &|config| config["global_pool"] = "map".into());
    assert!(map.contains("has global_pool = \"map\""), "{map}");
    let tiny = said("timm_vit_token", &|config| {
        config["model_args"]["global_pool"] = "token".into();
        config["architecture"] = "vit_so400m_patch14_siglip_224".into();
    });
    assert!(tiny.contains("there is no model \"vit_so400m_patch14_siglip_224\""), "{tiny}");
    let unknown = said("timm_vit_token", &|config| config["architecture"] = "deit_tinny_patch16_224".into());
    assert!(unknown.contains("did you mean \"deit_tiny_patch16_224\"?"), "{unknown}");
    let act = said("timm_vit_token", &|config| config["model_args"]["act_layer"] = "silu".into());
    assert!(act.contains("act_layer"), "{act}");
    // Means under a name that is none would be ImageNet's in silence.
    let means = said("timm_vit_token", &|config| {
        let mean = config["pretrained_cfg"].as_object_mut().unwrap().remove("mean").unwrap();
        config["pretrained_cfg"]["means"] = mean;
    });
    assert!(
        means.contains("pretrained_cfg has no mean but means, which means nothing there; is mean meant?"),
        "{means}"
    );
    let classes = said("timm_vit_token", &|config| config["num_classes"] = 12.into());
    assert!(classes.contains("has num_classes for 12 classes, but the classifier in "), "{classes}");
    assert!(classes.ends_with("has 10; one of the two is another model's"), "{classes}");
    let labels = said("timm_vit_token", &|config| config["label_names"] = json!(["cat", "dog"]));
    assert!(labels.contains("has label_names for 2 classes"), "{labels}");
    let labels = said("hf_vit", &|config| config["id2label"] = json!({"0": "cat", "1": "dog"}));
    assert!(labels.contains("has id2label for 2 classes"), "{labels}");
    let labels = said("hf_vit", &|config| config["id2label"] = json!(3));
    assert!(labels.contains("has id2label = 3, where an object is expected"), "{labels}");
    changed(temp.path(), "hf_vit", |_, _| {});
    fs::write(temp.path().join("preprocessor_config.json"), r#"{"image_meen": [0.5, 0.5, 0.5], "size": 32}"#).unwrap();
    let means = self::said(temp.path());
    assert!(means.contains("preprocessor_config.json has no image_mean but image_meen"), "{means}");
}

/// A processor that cuts pictures to another size than the position table is for: that is what the model is shown.
#[test]
fn a_model_is_shown_what_its_processor_cuts() {
    let temp = tempfile::tempdir().unwrap();
    let processor = |size: usize| {
        changed(temp.path(), "hf_dinov2", |_, _| {});
        let json = json!({
            "image_processor_type": "BitImageProcessor", "do_center_crop": true, "size": {"shortest_edge": 56},
            "crop_size": {"height": size, "width": size}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]
        });
        fs::write(temp.path().join("preprocessor_config.json"), json.to_string()).unwrap();
    };
    processor(48);
    let trained = opened(temp.path());
    let config = trained.config.clone().unwrap();
    assert_eq!(config.model.image_shape().height, 48);
    assert_eq!(config.preprocess().unwrap().scale, Scale::Shorter(56));
    assert_eq!(trained.weights.shape("pos_embed"), Some(&[1, 17, 48][..]), "the table is as it was");
    // The same as the model with its table brought to that size.
    let images: Vec<f32> = (0..3 * 48 * 48).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut by_hand = TrainedModel::open(golden("hf_dinov2")).unwrap();
    let mut larger = by_hand.config.clone().unwrap();
    larger.set("model.image_size=48").unwrap();
    by_hand.fit(&larger).unwrap();
    by_hand.config = Some(larger);
    assert_eq!(logits(trained, &images, 1), logits(by_hand, &images, 1));
    // There and back, by way of our own files: tensors, what it is shown, and how.
    let folder = |name: &str| temp.path().join(name);
    output(temp.path(), &["convert", ".", "ours", "--to", "lara"]);
    output(temp.path(), &["convert", "ours", "theirs", "--to", "hf"]);
    let back = opened(&folder("theirs"));
    assert_eq!(back.config, Some(config.clone()));
    assert_eq!(opened(&folder("ours")).config, Some(config));
    let original = TensorFile::open(golden("hf_dinov2").join("model.safetensors")).unwrap();
    let written = TensorFile::open(folder("theirs").join("model.safetensors")).unwrap();
    assert!(contents(&original) == contents(&written));
    processor(30);
    let said = said(temp.path());
    assert!(said.contains("has crop_size for images of 30x30, which patches of 8 do not divide"), "{said}");
    assert!(said.contains("preprocessor_config.json"), "{said}");
}

/// How a library brings its position tables to other sizes goes with the file.
#[test]
fn our_files_know_how_positions_are_resampled() {
    let temp = tempfile::tempdir().unwrap();
    for (name, how) in [("hf_vit", Resampling::Plain), ("timm_vit_token", Resampling::Antialiased)] {
        let source = golden(name).display().to_string();
        output(temp.path(), &["convert", &source, name, "--to", "lara"]);
        let table = |folder: &Path| {
            let mut trained = opened(folder);
            assert_eq!(trained.resampling, how, "{name}");
            let mut larger = trained.config.clone().unwrap();
            larger.set("model.image_size=48").unwrap();
            trained.fit(&larger).unwrap();
            trained.weights.numbers("pos_embed").unwrap()
        };
        assert_eq!(table(&temp.path().join(name)), table(&golden(name)), "{name}");
    }
}

/// What is written says how pictures are fitted, too.
#[test]
fn a_conversion_says_how_pictures_are_fitted() {
    let temp = tempfile::tempdir().unwrap();
    let data = |folder: &str| opened(&temp.path().join(folder)).config.unwrap().data;
    let convert = |name: &str, to: &str, sets: &[&str]| {
        let source = golden(name).display().to_string();
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let all: Vec<&str> = ["convert", &source, to, "--to", to].into_iter().chain(sets).collect();
        output(temp.path(), &all);
        let _ = fs::remove_dir_all(temp.path().join("written"));
        fs::rename(temp.path().join(to), temp.path().join("written")).unwrap();
        data("written")
    };
    let sets =
        ["data.crop_mode=squash", "data.interpolation=bilinear", "data.crop_pct=0.8", "data.mean=[0.1, 0.2, 0.3]"];
    for (name, to) in [("timm_pvt_v2", "timm"), ("timm_vit_token", "timm"), ("hf_vit", "hf"), ("hf_deit_teacher", "hf")]
    {
        let found = convert(name, to, &sets);
        let mut expected = TrainedModel::open(golden(name)).unwrap().config.unwrap();
        sets.iter().for_each(|set| expected.set(set).unwrap());
        let shape = expected.model.image_shape();
        assert_eq!(found.preprocess(shape).unwrap(), expected.data.preprocess(shape).unwrap(), "{name}");
    }
    let published = TrainedModel::open(golden("hf_dinov2")).unwrap().config.unwrap().data;
    assert_eq!(convert("hf_dinov2", "hf", &[]), published);
    let source = golden("hf_vit").display().to_string();
    let border = refusal(temp.path(), &["convert", &source, "out", "--to", "hf", "--set", "data.crop_mode=border"]);
    assert!(border.contains("transformers has no models with pictures resized so (Inside("), "{border}");
    assert!(border.contains("data.crop_mode = \"squash\" it has"), "{border}");
}

/// Registers, gated MLPs of any width and the other GELU, to Hugging Face and back.
#[test]
fn dinov2_of_any_kind_goes_to_hugging_face_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let io = TensorFile::open(golden("hf_dinov2").join("io.safetensors")).unwrap();
    let (shape, images) = io.numbers("input.images").unwrap();
    let gated = |ratio: f64, hidden: usize| {
        move |tensors: &mut Tensors, config: &mut Value| {
            (config["use_swiglu_ffn"], config["mlp_ratio"]) = (true.into(), ratio.into());
            tensors.retain(|(name, ..)| !name.contains(".mlp.fc"));
            for layer in 0..3 {
                let mut add = |name: &str, shape: Vec<usize>| {
                    let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.7).sin() / 8.0).collect();
                    tensors.push((format!("dinov2.encoder.layer.{layer}.mlp.{name}"), shape, values));
                };
                add("weights_in.weight", vec![2 * hidden, 48]);
                add("weights_in.bias", vec![2 * hidden]);
                add("weights_out.weight", vec![48, hidden]);
                add("weights_out.bias", vec![48]);
            }
        }
    };
    let registers = |tensors: &mut Tensors, config: &mut Value| {
        (config["model_type"], config["num_register_tokens"]) = ("dinov2_with_registers".into(), 4.into());
        for (name, ..) in tensors.iter_mut() {
            *name = name.replace("dinov2.", "dinov2_with_registers.");
        }
        let values = (0..4 * 48).map(|i| (i as f32).cos()).collect();
        tensors.push(("dinov2_with_registers.embeddings.register_tokens".into(), vec![1, 4, 48], values));
    };
    type Change<'a> = &'a dyn Fn(&mut Tensors, &mut Value);
    let tanh = |_: &mut Tensors, config: &mut Value| config["hidden_act"] = "gelu_pytorch_tanh".into();
    let narrow = |_: &mut Tensors, config: &mut Value| config["mlp_ratio"] = 4.015.into();
    let cases: [(&str, Change<'_>); 7] = [
        ("registers", &registers),
        ("tanh", &tanh),
        ("a ratio that is rounded down", &narrow),
        ("gated 4", &gated(4.0, 128)),
        ("gated 2", &gated(2.0, 64)),
        ("gated 3.3", &gated(3.3, 112)),
        ("gated 2.71", &gated(2.71, 88)),
    ];
    for (name, change) in cases {
        changed(&temp.path().join("first"), "hf_dinov2", |tensors, config| change(tensors, config));
        let first = opened(&temp.path().join("first"));
        output(temp.path(), &["convert", "first", "ours", "--to", "lara"]);
        output(temp.path(), &["convert", "ours", "theirs", "--to", "hf"]);
        let back = opened(&temp.path().join("theirs"));
        assert_eq!((&back.config, back.resampling), (&first.config, first.resampling), "{name}");
        assert!(contents(&back.weights) == contents(&first.weights), "{name}");
        let ModelConfig::Vit(vit) = &first.config.as_ref().unwrap().model else { panic!("a ViT") };
        assert_eq!(vit.num_prefix_tokens(), if name == "registers" { 5 } else { 1 });
        let [a, b] = [first, back].map(|trained| logits(trained, &images, shape[0]));
        assert_eq!(a, b, "{name}");
    }
    changed(&temp.path().join("first"), "hf_dinov2", tanh);
    let (_, exact) = io.numbers("output.logits").unwrap();
    let found = logits(opened(&temp.path().join("first")), &images, shape[0]);
    let difference = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!((1e-5..0.1).contains(&difference), "the other GELU is near the exact one and is not it: {difference}");
}

/// A classifier without a bias is one whose bias is zero.
#[test]
fn a_classifier_may_have_no_bias() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["timm_vit_token", "timm_deit_distilled", "hf_vit"] {
        let is_bias = |name: &str| ["head.bias", "head_dist.bias", "classifier.bias"].contains(&name);
        let (zeros, without) = (temp.path().join("zeros"), temp.path().join("without"));
        changed(&zeros, name, |tensors, _| {
            tensors.iter_mut().filter(|(name, ..)| is_bias(name)).for_each(|(.., values)| values.fill(0.0));
        });
        changed(&without, name, |tensors, _| tensors.retain(|(name, ..)| !is_bias(name)));
        let io = TensorFile::open(golden(name).join("io.safetensors")).unwrap();
        let (shape, images) = io.numbers("input.images").unwrap();
        let [a, b] = [zeros, without].map(|folder| logits(opened(&folder), &images, shape[0]));
        assert_eq!(a, b, "{name}");
    }
}

/// A tensor too few, too many or of another shape is told before anything is written.
#[test]
fn a_conversion_looks_at_every_tensor() {
    let temp = tempfile::tempdir().unwrap();
    let said = |change: &dyn Fn(&mut Tensors)| {
        changed(&temp.path().join("model"), "timm_vit_token", |tensors, _| change(tensors));
        let said = refusal(temp.path(), &["convert", "model", "out", "--to", "hf"]);
        assert!(!temp.path().join("out").exists());
        said
    };
    let missing = said(&|tensors| tensors.retain(|(name, ..)| name != "blocks.1.mlp.fc2.bias"));
    assert!(missing.contains("has no tensor blocks.1.mlp.fc2.bias, which the model needs (its shape is [48]; the nearest name there is blocks."), "{missing}");
    let extra = said(&|tensors| tensors.push(("blocks.1.mlp.fc3.bias".into(), vec![2, 3], vec![0.0; 6])));
    assert!(extra.contains("has tensor blocks.1.mlp.fc3.bias, which the model does not have (its shape is [2, 3]; the nearest name there is blocks."), "{extra}");
    let shape = said(&|tensors| {
        let fc2 = tensors.iter_mut().find(|(name, ..)| name == "blocks.1.mlp.fc2.bias").unwrap();
        (fc2.1, fc2.2) = (vec![24], vec![0.0; 24]);
    });
    assert!(shape.contains("blocks.1.mlp.fc2.bias has shape [24] in "), "{shape}");
}

/// LARA on a model that was trained without: what needs no weights is chosen, and said.
#[test]
fn lara_runs_on_a_model_of_softmax() {
    let temp = tempfile::tempdir().unwrap();
    let (model, io) = (golden("timm_vit_token"), golden("timm_vit_token").join("io.safetensors"));
    let [model, io] = [model, io].map(|path| path.display().to_string());
    let run =
        ["run", &model, "--input", &io, "--set", "attention.mechanism=lara", "--set", "attention.num_landmarks=4"];
    let results = ["by-itself", "chosen"].map(|name| {
        let file = format!("{name}.safetensors");
        let chosen = ["--set", "attention.proposal_gen=no-param-pool"];
        let more: &[&str] = if name == "chosen" { &chosen } else { &[] };
        let all: Vec<&str> = run.into_iter().chain(["--output", &file]).chain(more.iter().copied()).collect();
        let assert = lara(temp.path(), &all).assert().success();
        let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let notes = said.lines().filter(|line| line.contains("has no landmark weights")).count();
        assert_eq!(notes, usize::from(name == "by-itself"), "{said}");
        TensorFile::open(temp.path().join(file)).unwrap().numbers("logits").unwrap()
    });
    assert_eq!(results[0], results[1]);
    let pool = [&run[..], &["--output", "out.safetensors", "--set", "attention.proposal_gen=pool"]].concat();
    let said = refusal(temp.path(), &pool);
    assert!(said.contains("has no tensor blocks.0.attn.k_landmarks") || said.contains("q_landmarks"), "{said}");
}
