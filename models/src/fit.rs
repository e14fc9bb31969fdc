//! How a training step fits a device: less at a time, or computed twice.

use lara_runtime::{Gpu, Tune, human_bytes};

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::estimate::estimate;
use crate::settings::Checkpointing;

/// Micro-batches below this leave most devices idle: computing twice is tried before smaller ones.
const SMALL: usize = 16;

/// What a run takes on the device: a step of training, and the activations of the evaluations between steps.
///
/// # Errors
/// As [`estimate`].
pub fn needed(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<u64> {
    let estimate = estimate(gpu, tune, config, config.train.batch_size)?;
    let training = estimate.training.map_or(0, |memory| memory.peak());
    Ok(training + estimate.inference.activations + estimate.inference.pinned)
}

/// The configuration that needs at most `limit` bytes and least more work: `config` itself, or smaller micro-batches whose
/// gradients are averaged, or activations that are computed twice, or both. Returns it with what it needs.
///
/// # Errors
/// If nothing of that is enough: how much the least takes.
pub fn fit(gpu: &Gpu, tune: &Tune, config: &TrainConfig, limit: u64) -> Result<(TrainConfig, u64)> {
    let (mut least, mut found) = (u64::MAX, None);
    for (batch_size, checkpoint) in candidates(config) {
        let mut candidate = config.clone();
        candidate.train.grad_accum_steps *= config.train.batch_size / batch_size;
        candidate.train.batch_size = batch_size;
        candidate.train.checkpoint = checkpoint;
        let needed = needed(gpu, tune, &candidate)?;
        least = least.min(needed);
        if needed <= limit {
            found = Some((candidate, needed));
            break;
        }
    }
    found.ok_or_else(|| {
        Error::BadInput(format!(
            "this model does not train within {}: with one image at a time and activations computed twice it takes {}; lower the \
             image size or the model's width",
            human_bytes(limit),
            human_bytes(least)
        ))
    })
}

/// Batch sizes and what is computed twice, from the fastest to the smallest.
fn candidates(config: &TrainConfig) -> Vec<(usize, Checkpointing)> {
    let asked = config.train.checkpoint;
    let kept = if asked == Checkpointing::Auto { Checkpointing::None } else { asked };
    let halves = |from: usize| std::iter::successors(Some(from), |b| b.is_multiple_of(2).then_some(b / 2));
    let batch = config.train.batch_size;
    let plain = halves(batch).filter(|&size| size == batch || size >= SMALL).map(|size| (size, kept));
    plain.chain(halves(batch).map(|size| (size, Checkpointing::Block))).collect()
}
