//! The learning rate over a run, as timm and the scripts that call it have it; and what it is multiplied by, layer by layer.

use lara_models::data::augment::Recipe;
use lara_models::data::{Loader, LoaderOptions, Position, Split};
use lara_models::train::{Session, TrainConfig};
use lara_runtime::Role;
use lara_tests::adapter;
use pollster::block_on;

use crate::trainer::tune;

const NONE: &[&str] = &[];

/// The recipe of the rows below: 10 epochs of warm-up from 1e-6, 300 epochs, from 1e-3 to 1e-5.
const RECIPE: [&str; 5] =
    ["train.lr=1e-3", "train.min_lr=1e-5", "train.warmup_lr=1e-6", "train.warmup_epochs=10", "train.epochs=300"];

/// timm's `CosineLRScheduler` of the recipe after so many epochs.
const ROWS: [(u64, f64); 7] = [
    (0, 1e-6),
    (1, 1.009e-4),
    (9, 9.001e-4),
    (10, 9.972883e-4),
    (150, 5.05e-4),
    (298, 1.010856e-5),
    (299, 1.002714e-5),
];

fn configure(more: &[&str]) -> TrainConfig {
    TrainConfig::load("digits", &[&RECIPE, more].concat()).unwrap()
}

fn assert_near(what: &str, got: f64, expected: f64) {
    assert!((got / expected - 1.0).abs() < 1e-6, "{what}: {got:e}, not {expected:e}");
}

#[test]
fn timms_cosine_has_a_rate_for_each_epoch() {
    let schedule = configure(&["train.sched=timm"]).schedule(7);
    for (epoch, expected) in ROWS {
        for step in [7 * epoch, 7 * epoch + 6] {
            assert_near(&format!("epoch {epoch}"), schedule.at(step), expected);
        }
    }
    assert_eq!(schedule.at(7 * 300), 1e-5);
    assert_eq!(schedule.at(u64::MAX), 1e-5);
}

#[test]
fn the_scripts_of_deit_are_an_epoch_late() {
    let schedule = configure(&["train.sched=deit"]).schedule(7);
    assert_eq!([schedule.at(0), schedule.at(6), schedule.at(7), schedule.at(13)], [1e-6; 4]);
    for (epoch, expected) in ROWS {
        assert_near(&format!("epoch {}", epoch + 1), schedule.at(7 * (epoch + 1) + 3), expected);
    }
}

#[test]
fn with_updates_every_step_has_its_rate() {
    let schedule = configure(&["train.sched=timm", "train.sched_on_updates=true"]).schedule(7);
    for (epoch, expected) in ROWS {
        assert_near(&format!("the first step of epoch {epoch}"), schedule.at(7 * epoch), expected);
    }
    assert_near("a step of the warm-up", schedule.at(35), 1e-6 + 0.5 * (1e-3 - 1e-6));
    assert!((70..2100).all(|step| schedule.at(step) > schedule.at(step + 1)));
}

#[test]
fn warm_up_and_cooldown_outside_the_cosine_make_the_run_longer() {
    let plain = configure(&["train.sched=timm"]);
    assert_eq!(plain.train.total_epochs(), 300);
    let config = configure(&["train.sched=timm", "train.warmup_prefix=true", "train.cooldown_epochs=5"]);
    assert_eq!(config.train.total_epochs(), 315);
    let schedule = config.schedule(2);
    // The whole cosine, from its peak, after the warm-up.
    assert_near("after the warm-up", schedule.at(20), 1e-3);
    assert_near("in the middle", schedule.at(20 + 2 * 150), 5.05e-4);
    assert_eq!((schedule.at(2 * 310), schedule.at(2 * 314 + 1)), (1e-5, 1e-5));
    // Our own cosine cools down, too.
    let config = configure(&["train.cooldown_epochs=5"]);
    assert_eq!((config.train.total_epochs(), config.schedule(2).at(2 * 302)), (305, 1e-5));
}

#[test]
fn the_peak_grows_with_the_images_of_a_step() {
    let deit = ["train.lr=5e-4", "train.lr_base_size=512", "train.batch_size=256", "train.grad_accum_steps=4"];
    let config = configure(&deit);
    assert_near("DeiT's peak", config.train.peak_lr(), 1e-3);
    assert_near("DeiT's peak", config.schedule(3).at(30), 1e-3);
}

#[test]
fn schedules_that_contradict_themselves_get_a_sentence() {
    let refused = |sets: &[&str]| TrainConfig::load("digits", sets).unwrap_err().to_string();
    assert!(
        refused(&["train.sched=deit", "train.sched_on_updates=true"])
            .starts_with("train.sched_on_updates = true is for")
    );
    assert!(
        refused(&["train.warmup_prefix=true"]).starts_with("train.warmup_prefix = true is for train.sched = \"timm\"")
    );
    assert_eq!(
        refused(&["train.lr_base_size=1048576", "train.lr=1e-3", "train.min_lr=1e-5"]),
        "train.min_lr is 0.00001; it must be between 0 and train.lr scaled to the batch = 0.000000030517578125"
    );
    assert!(refused(&["train.layer_decay=0"]).starts_with("train.layer_decay is 0; it must be above 0 and at most 1"));
    assert!(refused(&["train.sched=timn"]).ends_with("must be one of cosine, timm, deit; did you mean \"timm\"?"));
    assert!(refused(&["train.clip_mode=arc"]).contains("must be one of norm, value, agc"));
}

#[test]
fn layers_learn_more_slowly_towards_the_images() {
    assert_eq!(TrainConfig::load("digits", NONE).unwrap().lr_scales(), []);
    // timm's `param_groups_layer_decay` for a ViT of 4 blocks: 0.5 to the power of the layers above.
    let scales = configure(&["train.layer_decay=0.5"]).lr_scales();
    let of = |name: &str| scales.iter().find(|(prefix, _)| name.starts_with(prefix.as_str())).unwrap().1;
    for (name, expected) in [
        ("head.weight", 1.0),
        ("head_dist.bias", 1.0),
        ("fc_norm.weight", 1.0),
        ("norm.weight", 0.5),
        ("blocks.3.norm1.weight", 0.5),
        ("blocks.1.attn.qkv.weight", 0.125),
        ("blocks.0.mlp.fc1.bias", 0.0625),
        ("pos_embed", 0.03125),
        ("cls_token", 0.03125),
        ("patch_embed.proj.weight", 0.03125),
    ] {
        assert_eq!(of(name), expected, "{name}");
    }
}

#[test]
fn a_stage_of_a_pyramid_is_a_layer() {
    let scales = TrainConfig::load("pvt_v2_b3", &["train.layer_decay=0.5"]).unwrap().lr_scales();
    let of = |name: &str| scales.iter().find(|(prefix, _)| name.starts_with(prefix.as_str())).unwrap().1;
    for (name, expected) in [
        ("head.bias", 1.0),
        ("stages.3.norm.weight", 0.5),
        ("stages.0.blocks.2.mlp.fc1.weight", 0.0625),
        ("stages.1.downsample.proj.weight", 0.125),
        ("patch_embed.proj.weight", 0.03125),
    ] {
        assert_eq!(of(name), expected, "{name}");
    }
}

#[test]
fn a_step_moves_the_layers_as_far_as_their_rates_say() {
    // Without decay AdamW's first step moves every number by the learning rate, as far as there is a gradient.
    let sets = [
        "train.layer_decay=0.1",
        "model.weight_init=timm",
        "train.weight_decay=0",
        "train.warmup_epochs=0",
        "train.lr=1e-3",
        "train.min_lr=0",
    ];
    let config = TrainConfig::load("digits", &sets).unwrap();
    let options = LoaderOptions::train(32, 1, 0, Recipe::train(&config.data, &config.augment).unwrap());
    let images = config.open_data(Split::Train).unwrap();
    let batch = Loader::new(images, options, Position::default()).unwrap().next().unwrap().unwrap();
    let mut session = block_on(Session::new(adapter(), &tune(), &config, config.schedule(10))).unwrap();
    let read = |session: &Session| block_on(session.parameters.read(adapter(), Role::Weight)).unwrap();
    let before = read(&session);
    session.step(0, &[batch]).unwrap();
    session.finish().unwrap();
    let after = read(&session);
    for (name, above) in [("head.bias", 0), ("norm.bias", 1), ("blocks.3.mlp.fc2.bias", 1), ("blocks.1.norm1.bias", 3)]
    {
        let at = session.parameters.entries().iter().position(|entry| entry.name == name).unwrap();
        let moved = before[at].iter().zip(&after[at]).map(|(before, after)| (before - after).abs()).fold(0.0, f32::max);
        let expected = 1e-3 * 0.1f32.powi(above);
        assert!((moved / expected - 1.0).abs() < 1e-2, "{name} moved by {moved:e}, not {expected:e}");
    }
}
