//! What `lara models` says of memory, against what is held on the device while a model works.

use lara_models::Predictor;
use lara_models::data::{Batch, Position};
use lara_models::estimate::estimate;
use lara_models::train::{Session, TrainConfig};
use lara_runtime::{Gpu, GpuOptions, Parameters};
use pollster::block_on;

use crate::trainer::tune;

/// A device of a test's own: nothing else is counted.
fn open() -> Gpu {
    let adapter = std::env::var("LARA_ADAPTER").ok();
    Gpu::open_blocking(&GpuOptions { adapter, ..GpuOptions::default() }).expect("an adapter")
}

/// What is in use is what was predicted, within 10 %.
#[track_caller]
fn agrees(what: &str, predicted: u64, in_use: u64) {
    let ratio = in_use as f64 / predicted as f64;
    assert!((0.9..=1.1).contains(&ratio), "{what}: {predicted} bytes predicted, {in_use} in use: {ratio:.3}");
}

/// A forward pass and a step of training with `batch` images, on a device of their own.
fn check(name: &str, sets: &[&str], batch: usize) {
    let gpu = open();
    for mechanism in ["softmax", "lara"] {
        let mut config = TrainConfig::default();
        let sizes = [format!("train.batch_size={batch}"), format!("attention.mechanism={mechanism}")];
        let all = [format!("model.name={name}")].into_iter().chain(sets.iter().map(|set| set.to_string())).chain(sizes);
        all.for_each(|set| config.set(&set).unwrap_or_else(|e| panic!("{e}")));
        config.validate().unwrap_or_else(|e| panic!("{e}"));
        let before = gpu.memory_in_use();
        let estimate = estimate(&gpu, &tune(), &config, batch).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(gpu.memory_in_use(), before, "predicting allocates nothing");

        let shape = config.model.image_shape();
        let images = vec![0.5; batch * shape.len()];
        let mut parameters = Parameters::new(&gpu);
        let predictor = block_on(Predictor::new(&gpu, &tune(), &config, &mut parameters, batch, false)).unwrap();
        assert_eq!(block_on(predictor.logits(&images)).unwrap().len(), batch);
        agrees(&format!("{name}, {mechanism}, forward"), estimate.inference.peak(), gpu.memory_in_use() - before);
        drop((predictor, parameters));
        assert_eq!(gpu.memory_in_use(), before, "what a forward pass took is given back");

        let mut session = block_on(Session::new(&gpu, &tune(), &config, config.schedule(10))).unwrap();
        let labels = (0..batch as u32).collect();
        let indices = vec![0; batch];
        session.step(0, &[Batch { images, labels, mixed: vec![], indices, position: Position::default() }]).unwrap();
        let loss = session.finish().unwrap()[0].loss;
        assert!(loss.is_finite() && loss > 0.0, "{name}, {mechanism}: loss {loss}");
        let training = estimate.training.expect("a classifier").peak();
        agrees(&format!("{name}, {mechanism}, training"), training, gpu.memory_in_use() - before);
        drop(session);
        assert_eq!(gpu.memory_in_use(), before, "what training took is given back");
    }
}

#[test]
fn a_small_vit_takes_what_was_predicted() {
    check("deit_tiny_patch16_224", &["model.depth=2", "model.image_size=64", "attention.num_landmarks=4"], 4);
}

#[test]
fn a_small_pyramid_takes_what_was_predicted() {
    let small = ["model.depths=[1, 1, 1, 1]", "model.image_size=64", "attention.num_landmarks=4"];
    check("pvt_medium2", &small, 2);
}

#[test]
#[ignore = "minutes on a software adapter; `cargo xtask test --full` runs it"]
fn deit_tiny_at_full_size_takes_what_was_predicted() {
    check("deit_tiny_patch16_224", &[], 2);
}

#[test]
#[ignore = "minutes on a software adapter; `cargo xtask test --full` runs it"]
fn pvt_v2_b3_at_full_size_takes_what_was_predicted() {
    check("pvt_v2_b3", &[], 2);
}

#[test]
#[ignore = "minutes on a software adapter; `cargo xtask test --full` runs it"]
fn the_papers_pyramid_at_full_size_takes_what_was_predicted() {
    check("pvt_medium2", &[], 2);
}
