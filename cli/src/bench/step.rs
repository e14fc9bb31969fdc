//! A training step of the reference ViT: 28x28 grey, patch 4, 49 tokens, dim 64, depth 4, 2 heads, batch 64, AdamW.

use std::time::Instant;

use lara_models::data::{Batch, Position};
use lara_models::train::{Session, TrainConfig};
use lara_runtime::{Gpu, Tune};

use super::measure::Times;
use super::rows::Bench;
use crate::fail::Outcome;

const STEPS: u64 = 20;

pub(super) fn run(bench: &mut Bench<'_>) -> Outcome {
    for mechanism in ["softmax", "lara"] {
        bench.bar.set_message(format!("training step, {mechanism}"));
        let sets = [
            format!("attention.mechanism={mechanism}"),
            "attention.num_landmarks=49".into(),
            "train.batch_size=64".into(),
        ];
        let config = TrainConfig::load("mnist", &sets)?;
        let timed = time(bench.gpu, &bench.tune, &config, STEPS)?;
        let name = format!("ViT {} parameters, step, {mechanism}", timed.parameters);
        bench.push(name, &timed.steps, None, Some(timed.activation_bytes));
        let name = format!("to the end of the first step, {mechanism}");
        bench.push(name, &Times::of(vec![timed.first]), None, None);
    }
    Ok(())
}

/// How long the training steps of a configuration take.
pub(crate) struct Timed {
    /// Seconds of recording, compiling and the first step.
    pub(crate) first: f64,
    pub(crate) steps: Times,
    pub(crate) parameters: usize,
    pub(crate) activation_bytes: u64,
}

/// Times training steps one by one on a batch of made-up images, in a session of their own.
pub(crate) fn time(gpu: &Gpu, tune: &Tune, config: &TrainConfig, steps: u64) -> Outcome<Timed> {
    let start = Instant::now();
    let schedule = config.schedule(100);
    let mut session = pollster::block_on(Session::new(gpu, tune, config, schedule))?;
    let batches = vec![batch(config); config.train.grad_accum_steps.max(1)];
    session.step(0, &batches)?;
    session.finish()?;
    let first = start.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    for step in 1..=steps {
        let start = Instant::now();
        session.step(step, &batches)?;
        session.finish()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let activation_bytes = session.memory().activations;
    Ok(Timed { first, steps: Times::of(seconds), parameters: session.parameters.count(), activation_bytes })
}

fn batch(config: &TrainConfig) -> Batch {
    let (count, model) = (config.train.batch_size, &config.model);
    let pixels = model.image_shape().len();
    Batch {
        images: (0..count * pixels).map(|i| (0.37 * i as f32).sin()).collect(),
        labels: (0..count).map(|i| ((i * 7 + 3) % model.num_classes()) as u32).collect(),
        mixed: Vec::new(),
        indices: (0..count as u32).collect(),
        position: Position::default(),
    }
}
