//! A training step of the reference ViT: 28x28 grey, patch 4, 49 tokens, dim 64, depth 4, 2 heads, batch 64, AdamW.

use std::time::Instant;

use lara_models::data::{Batch, Position};
use lara_models::train::{Session, TrainConfig};

use super::Bench;
use super::measure::Times;
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
        let start = Instant::now();
        let schedule = config.schedule(100);
        let mut session = pollster::block_on(Session::new(bench.gpu, &bench.tune, &config, schedule))?;
        let batch = batch(&config);
        session.step(0, &batch)?;
        session.finish()?;
        let first = start.elapsed().as_secs_f64();
        let mut seconds = Vec::new();
        for step in 1..=STEPS {
            let start = Instant::now();
            session.step(step, &batch)?;
            session.finish()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let name = format!("ViT {} parameters, step, {mechanism}", session.parameters.count());
        bench.push(name, &Times::of(seconds), None, Some(session.memory().activations));
        let name = format!("to the end of the first step, {mechanism}");
        bench.push(name, &Times::of(vec![first]), None, None);
    }
    Ok(())
}

fn batch(config: &TrainConfig) -> Vec<Batch> {
    let (count, pixels) = (config.train.batch_size, config.model.image_size * config.model.image_size);
    vec![Batch {
        images: (0..count * pixels).map(|i| (0.37 * i as f32).sin()).collect(),
        labels: (0..count as u32).map(|i| (i * 7 + 3) % 10).collect(),
        indices: (0..count as u32).collect(),
        position: Position::default(),
    }]
}
