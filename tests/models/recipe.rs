//! DeiT's recipe as a whole: what a batch goes through, whatever the number of loader threads and wherever a run goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lara_models::data::augment::{Augment, Recipe};
use lara_models::data::{Batch, Digits, ImageDataset, Loader, LoaderOptions, Position, Split};
use lara_models::train::TrainConfig;
use lara_runtime::attention::MechanismKind;

use crate::trainer::{done, interrupted, resume, start, tensors};

/// All that there is, on pictures of 8x8 of any size before.
const ALL: [&str; 13] = [
    "augment.scale=[0.3, 1.0]",
    "augment.vflip=0.3",
    "augment.auto_augment=rand-m9-n3-mstd0.5-inc1",
    "augment.reprob=0.5",
    "augment.remode=pixel",
    "augment.recount=2",
    "augment.mixup=0.8",
    "augment.cutmix=1.0",
    "augment.mixup_mode=elem",
    "augment.aug_repeats=3",
    "data.hflip=0.5",
    "train.batch_size=4",
    "train.epochs=3",
];

/// Pictures of two classes, no two of the same size, of at least 8x8.
fn write_pictures(root: &Path, count: u32) {
    for (split, count) in [("train", count), ("val", 4)] {
        for i in 0..count {
            let folder = root.join(split).join(["bright", "dark"][i as usize % 2]);
            std::fs::create_dir_all(&folder).unwrap();
            let picture = image::RgbImage::from_fn(9 + i, 42 - i, |x, y| {
                let shade = 128 * (i % 2);
                image::Rgb([40 + 3 * x + i, 60 + 2 * y, x * y % 90].map(|value| (value + shade).min(255) as u8))
            });
            picture.save(folder.join(format!("{i:02}.png"))).unwrap();
        }
    }
}

fn configure(root: &Path, sets: &[&str]) -> TrainConfig {
    let dir = root.join("run");
    let fixed = [
        format!("output.dir={}", dir.display()),
        format!("data.path={}", root.display()),
        "data.dataset=folder".into(),
        "data.mean=[0.485, 0.456, 0.406]".into(),
        "data.std=[0.229, 0.224, 0.225]".into(),
        "model.in_chans=3".into(),
        "model.num_classes=2".into(),
        "model.depth=2".into(),
        "model.drop_path_rate=0.1".into(),
        "output.tensorboard=false".into(),
        "train.warmup_epochs=1".into(),
    ];
    let sets: Vec<&str> = fixed.iter().map(String::as_str).chain(sets.iter().copied()).collect();
    TrainConfig::load("digits", &sets).unwrap()
}

/// The first batches of a training run, from `begin` on.
fn batches(config: &TrainConfig, workers: usize, begin: Position, count: usize) -> Vec<Batch> {
    let recipe = Recipe::train(&config.data, &config.augment).unwrap();
    let options = LoaderOptions::train(config.train.batch_size, config.train.seed, workers, recipe);
    let options = LoaderOptions { repeats: config.augment.aug_repeats, ..options };
    let loader = Loader::new(config.open_data(Split::Train).unwrap(), options, begin).unwrap();
    loader.take(count).map(|batch| batch.unwrap()).collect()
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers_or_on_where_a_run_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    write_pictures(temp.path(), 20);
    let config = configure(temp.path(), &ALL);
    let reference = batches(&config, 0, Position::default(), 12);
    assert!(reference.iter().all(|batch| batch.images.iter().all(|value| value.is_finite())));
    for workers in [1, 2, 5] {
        assert!(batches(&config, workers, Position::default(), 12) == reference, "{workers} workers");
    }
    assert!(batches(&config, 2, Position { epoch: 1, batch: 3 }, 4) == reference[8..]);
    // Another epoch, another view; each of the parts counts.
    let of_epoch = |batch: &Batch| (batch.position.epoch, batch.images.clone());
    assert_ne!(of_epoch(&reference[0]).1, of_epoch(&reference[5]).1);
    for off in [
        "augment.scale=[]",
        "augment.vflip=0",
        "augment.auto_augment=\"\"",
        "augment.reprob=0",
        "augment.mixup=0",
        "data.hflip=0",
    ] {
        let config = configure(temp.path(), &[&ALL[..], &[off]].concat());
        assert!(batches(&config, 0, Position::default(), 12) != reference, "{off} changes nothing");
    }
}

#[test]
fn a_run_with_everything_on_goes_on_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    write_pictures(temp.path(), 32);
    let sets = [
        &ALL[..],
        &[
            "train.sched=deit",
            "train.layer_decay=0.7",
            "train.clip_mode=agc",
            "train.clip_grad=0.02",
            "train.model_ema=true",
        ],
    ]
    .concat();
    let config = configure(temp.path(), &sets);
    let whole = done(start(&config));
    let expected = tensors(&whole.checkpoint.unwrap());
    std::fs::rename(temp.path().join("run"), temp.path().join("whole")).unwrap();
    // 32 pictures in batches of 4: 8 steps an epoch. A stop takes hold up to six steps later, still within the second.
    let stopped = interrupted(start(&config), 9);
    assert!(stopped.checkpoint.unwrap().exists());
    let resumed = done(resume(&temp.path().join("run")));
    assert!(tensors(&resumed.checkpoint.unwrap()) == expected);
}

#[test]
fn repeated_augmentation_shows_a_third_of_the_images_three_times() {
    let digits: Arc<dyn ImageDataset> = Arc::new(Digits::new(Split::Train));
    let options = LoaderOptions::train(50, 3, 2, recipe(&["augment.vflip=0.5", "augment.aug_repeats=3"]));
    let options = LoaderOptions { repeats: 3, ..options };
    let loader = Loader::new(digits, options, Position::default()).unwrap();
    // 1,437 images: 1,280 of them a multiple of 256, in 25 full batches.
    assert_eq!(loader.batches_per_epoch(), 25);
    let epoch: Vec<Batch> = loader.take(25).map(|batch| batch.unwrap()).collect();
    let indices: Vec<u32> = epoch.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert!(indices.chunks(3).all(|copies| copies.iter().all(|&index| index == copies[0])));
    let mut counts = BTreeMap::new();
    indices.iter().for_each(|&index| *counts.entry(index).or_insert(0) += 1);
    assert_eq!((counts.len(), counts.values().filter(|&&count| count == 3).count()), (417, 416));
    // Copies are views of their own: of three, flipped or not, two are alike and often not all three.
    let images: Vec<&[f32]> = epoch.iter().flat_map(|batch| batch.images.chunks(64)).collect();
    let differ = images.chunks(3).filter(|copies| copies.iter().any(|image| image != &copies[0])).count();
    assert!((280..350).contains(&differ), "{differ} of 417");
}

#[test]
fn small_sets_are_repeated_whole() {
    let temp = tempfile::tempdir().unwrap();
    write_pictures(temp.path(), 10);
    let config = configure(temp.path(), &["augment.aug_repeats=3", "train.batch_size=5"]);
    let epoch = batches(&config, 1, Position::default(), 2);
    assert_eq!(epoch[1].position, Position { epoch: 0, batch: 1 });
    assert_eq!(epoch[0].indices[0], epoch[0].indices[2]);
    assert_ne!(epoch[0].indices[2], epoch[0].indices[3]);
}

fn recipe(sets: &[&str]) -> Recipe {
    let config = TrainConfig::load("digits", sets).unwrap();
    Recipe::train(&config.data, &config.augment).unwrap()
}

#[test]
fn with_nothing_on_images_are_what_they_were() {
    let plain = Augment { mean: vec![0.3], std: vec![0.4], crop_padding: 1, hflip: 0.5 };
    let of = |recipe: Recipe| {
        let options = LoaderOptions::train(50, 11, 0, recipe);
        let digits: Arc<dyn ImageDataset> = Arc::new(Digits::new(Split::Train));
        Loader::new(digits, options, Position::default()).unwrap().next().unwrap().unwrap()
    };
    // With pictures of 8 bits crops and flips are the same, and values within half a level.
    let pictures = recipe(&["augment.vflip=1e-9"]).pictures;
    let (exact, rounded) = (of(plain.clone().into()), of(Recipe { pictures, ..plain.into() }));
    assert_eq!(exact.indices, rounded.indices);
    let worst = exact.images.iter().zip(&rounded.images).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst <= 0.5 / 255.0 / 0.4 + 1e-6, "{worst}");
}

#[test]
fn mixed_images_have_the_labels_of_both() {
    let recipe = recipe(&["augment.mixup=0.8", "augment.cutmix=1.0"]);
    let options = LoaderOptions::train(10, 1, 0, recipe);
    let digits: Arc<dyn ImageDataset> = Arc::new(Digits::new(Split::Train));
    for batch in Loader::new(digits, options, Position::default()).unwrap().take(20) {
        let batch = batch.unwrap();
        assert_eq!(batch.mixed.len(), 10);
        let share = batch.mixed[0].share;
        assert!((0.0..=1.0).contains(&share));
        for (i, mixed) in batch.mixed.iter().enumerate() {
            assert_eq!((mixed.label, mixed.share), (batch.labels[9 - i], share));
        }
    }
}

#[test]
fn settings_that_contradict_themselves_get_a_sentence() {
    let refused = |sets: &[&str]| TrainConfig::load("digits", sets).unwrap_err().to_string();
    assert_eq!(
        refused(&["augment.scale=[0.5, 0.2]"]),
        "augment.scale is [0.5, 0.2]; it must be [] or two shares above 0 and up to 1, the smaller one first"
    );
    assert!(refused(&["augment.auto_augment=rand-x3"]).contains("its part \"x3\" is not one of m, mstd"));
    assert!(
        refused(&["augment.auto_augment=rand", "augment.color_jitter=0.4"])
            .starts_with("augment.color_jitter does nothing")
    );
    assert!(
        refused(&["augment.mixup=0.8", "train.batch_size=33"]).starts_with("train.batch_size is 33; augment.mixup")
    );
    assert!(refused(&["augment.reprob=1.5"]).starts_with("augment.reprob is 1.5; it is a probability"));
    assert!(refused(&["augment.recount=0"]).starts_with("augment.recount is 0; it must be between 1 and 64"));
    assert!(
        refused(&["augment.scale=[0.08, 1.0]", "data.crop_padding=2"])
            .starts_with("data.crop_padding = 2 does nothing")
    );
    assert!(refused(&["augment.mixupp=1"]).ends_with("did you mean `augment.mixup`?"));
    assert!(TrainConfig::load("digits", &["augment.color_jitter=[0.4, 0.4, 0.2]"]).is_ok());
    assert!(refused(&["augment.color_jitter=[0.4, -1, 0.2]"]).starts_with("augment.color_jitter is -1; it must be 0"));
}

#[test]
fn presets_of_the_paper_use_its_recipe() {
    for (name, tokens, batch) in [
        ("deit_tiny_p16", 196, 64),
        ("deit_tiny_p8", 784, 16),
        ("deit_small_p16", 196, 32),
        ("deit_small_p8", 784, 8),
        ("pvt_v2_b3", 3136, 8),
    ] {
        let config = TrainConfig::load(name, &[] as &[&str]).unwrap();
        assert_eq!(config.model.layer(0).tokens(), tokens, "{name}");
        assert_eq!((config.train.batch_size, config.train.batch_size * config.train.grad_accum_steps), (batch, 1024));
        assert_eq!((config.train.peak_lr(), config.train.total_epochs()), (1e-3, 300));
        let recipe = Recipe::train(&config.data, &config.augment).unwrap();
        assert!(recipe.crops_pictures() && recipe.erasing.is_some() && recipe.mixup.is_some());
    }
    let pyramid = TrainConfig::load("pvt_v2_b3", &[] as &[&str]).unwrap();
    assert_eq!((pyramid.train.clip_grad, pyramid.augment.aug_repeats), (1.0, 3));
    assert_eq!(pyramid.attention_of(27).unwrap().mechanism, MechanismKind::Softmax);
    assert_eq!(pyramid.attention_of(24).unwrap().mechanism, MechanismKind::Lara);
}

/// 64 tokens or 256 of a drawing, and no more landmarks than either has; every mechanism finds its settings.
#[test]
fn emoji_train_under_the_recipe_at_two_sizes_of_patches() {
    for (patch, tokens) in [(8, 64), (4, 256)] {
        for mechanism in MechanismKind::ALL {
            let sets = [format!("attention={}", mechanism.name()), format!("model.patch_size={patch}")];
            let config = TrainConfig::load("emoji", &sets).unwrap();
            assert_eq!((config.model.layer(0).tokens(), config.attention.num_landmarks), (tokens, 16));
            assert_eq!(config.attention.mechanism, mechanism);
            let recipe = Recipe::train(&config.data, &config.augment).unwrap();
            assert!(recipe.crops_pictures() && recipe.erasing.is_some() && recipe.mixup.is_some());
        }
    }
}
