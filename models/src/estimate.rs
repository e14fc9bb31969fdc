//! What a model takes, before anything of it is on the device: recorded, not compiled.

use lara_runtime::{Gpu, Memory, Mode, Parameters, Recorder, Role, Tape, Tune};
use serde::Serialize;

use crate::config::TrainConfig;
use crate::error::Result;
use crate::settings::Checkpointing;
use crate::task::{Classify, Task};
use crate::weights::names_and_shapes;

/// What a model takes at a batch size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Numbers that are learned.
    pub parameters: usize,
    /// Tokens of the first block, with those in front.
    pub tokens: usize,
    /// Multiply-adds of one image's forward pass in matrix products and attention, which is nearly all there are.
    pub macs: f64,
    /// Bytes of the forward pass.
    pub inference: Memory,
    /// Bytes of a training step with AdamW; none where there is no classifier to train.
    pub training: Option<Memory>,
}

/// What a step of training keeps of every parameter.
const TRAINING: [Role; 4] = [Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment];

/// Records the model for `batch` images, forward and, where it has classes, as a step of training. Which variants of kernels
/// `tune` chooses decides on some of the memory.
///
/// # Errors
/// Settings that contradict each other, or a tensor that no adapter could hold.
pub fn estimate(gpu: &Gpu, tune: &Tune, config: &TrainConfig, batch: usize) -> Result<Estimate> {
    let mut parameters = Parameters::new(gpu);
    let mut tape = Tape::new(&mut parameters, tune, Mode::Eval);
    let inputs = config.model.declare(&mut tape, batch);
    let outputs = config.build()?.forward(&mut tape, &inputs);
    tape.rec.pin(outputs.first());
    let forward = tape.finish()?;
    let training = (config.model.num_classes() > 0).then(|| training(gpu, tune, config, batch)).transpose()?;
    Ok(Estimate {
        parameters: parameters.count(),
        tokens: config.model.layer(0).tokens(),
        macs: macs(&forward) / batch as f64,
        inference: Memory::of(forward, &parameters, &[Role::Weight])?,
        training,
    })
}

/// Names and shapes of the weights of a model with these settings. No device is needed.
///
/// # Errors
/// Settings that contradict each other.
pub fn weights(config: &TrainConfig) -> Result<Vec<(String, Vec<usize>)>> {
    let (mut parameters, tune) = (Parameters::unplaced(), Tune::fixed(&[]));
    let mut tape = Tape::new(&mut parameters, &tune, Mode::Eval);
    let inputs = config.model.declare(&mut tape, 1);
    config.build()?.forward(&mut tape, &inputs);
    tape.finish()?;
    Ok(names_and_shapes(&parameters))
}

fn training(gpu: &Gpu, tune: &Tune, config: &TrainConfig, batch: usize) -> Result<Memory> {
    of_step(&Classify::new(config)?, gpu, tune, config, batch, config.train.checkpoint == Checkpointing::Block)
}

/// Bytes of a training step of a task, whose blocks are computed twice or kept.
///
/// # Errors
/// As [`estimate`].
pub(crate) fn of_step<T: Task>(
    task: &T,
    gpu: &Gpu,
    tune: &Tune,
    config: &TrainConfig,
    batch: usize,
    recomputes: bool,
) -> Result<Memory> {
    let mut parameters = Parameters::new(gpu);
    let accumulate = config.train.grad_accum_steps > 1;
    let mut tape = Tape::new(&mut parameters, tune, Mode::Train { accumulate });
    tape.recompute(recomputes);
    let objective = task.record(&mut tape, batch)?;
    let share = tape.input("loss gradient", [1]);
    tape.rec.pin(objective.report);
    tape.backward(&[(objective.loss, share)]);
    let step = tape.finish()?;
    let average = config.train.model_ema.then_some(Role::Ema);
    let roles: Vec<Role> = TRAINING.into_iter().chain(average).collect();
    Ok(Memory::of(step, &parameters, &roles)?)
}

/// Multiply-adds of what counts its operations.
fn macs(recording: &Recorder) -> f64 {
    recording.steps().iter().map(|step| step.flops).sum::<f64>() / 2.0
}
