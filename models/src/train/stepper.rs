//! What every trainer does: batches in, steps on the device, results out. Whoever drives it decides when.

use std::sync::Arc;
use std::time::Duration;

use lara_runtime::{Gpu, Tune};
use web_time::Instant;

use super::evaluate::{Evaluation, evaluate};
use super::{Session, StepResult, TrainConfig};
use crate::data::{Augment, Batch, Dataset, Loader, LoaderOptions, Position, Split};
use crate::error::{Error, Result};
use crate::predictor::Predictor;

/// A step's result and where the run stood with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The result.
    pub result: StepResult,
    /// Its learning rate.
    pub lr: f64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Epochs complete, with the fraction of the current one.
    pub epoch: f64,
    /// Images a second since the run started or resumed, without its first step and without pauses.
    pub images_per_second: f64,
}

/// Session, evaluator, data and the place in them.
pub(super) struct Stepper {
    pub(super) session: Session,
    pub(super) config: TrainConfig,
    evaluator: Predictor,
    loader: Loader,
    held_out: Arc<dyn Dataset>,
    classes: Vec<String>,
    step: u64,
    arrived: u64,
    total_steps: u64,
    steps_per_epoch: u64,
    first_step: u64,
    first_step_seconds: f64,
    pub(super) clock: Clock,
}

impl Stepper {
    /// Opens the data and compiles the plans, for a run that goes on after `step` steps with the batch at `position`.
    pub(super) async fn new(
        gpu: &Gpu,
        tune: &Tune,
        config: &TrainConfig,
        step: u64,
        position: Position,
    ) -> Result<Self> {
        config.validate()?;
        let clock = Clock::start();
        let images = config.open_data(Split::Train)?;
        let held_out = config.open_data(Split::Test)?;
        let classes = images.classes().to_vec();
        let (loader, steps_per_epoch) = open_loader(config, images, position)?;
        let session = Session::new(gpu, tune, config, config.schedule(steps_per_epoch)).await?;
        let batch = config.train.batch_size.min(held_out.len().max(1));
        let evaluator = session.evaluator(batch).await?;
        Ok(Stepper {
            session,
            evaluator,
            loader,
            held_out,
            classes,
            step,
            arrived: step,
            total_steps: config.train.epochs * steps_per_epoch,
            steps_per_epoch,
            first_step: step,
            first_step_seconds: 0.0,
            clock,
            config: config.clone(),
        })
    }

    /// Optimizer steps started.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Optimizer steps of the whole run.
    pub(super) fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Where the next batch stands.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn position(&self) -> Position {
        self.loader.position()
    }

    /// Names of the classes.
    pub(super) fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of held-out images.
    pub(super) fn held_out(&self) -> usize {
        self.held_out.len()
    }

    /// Whether every step was started.
    pub(super) fn is_done(&self) -> bool {
        self.step >= self.total_steps
    }

    /// Steps that were started and whose results did not arrive yet.
    pub(super) fn under_way(&self) -> u64 {
        self.step - self.arrived
    }

    /// Epochs complete.
    pub(super) fn epochs(&self) -> u64 {
        self.step / self.steps_per_epoch
    }

    /// Whether the step just started is the first since the start or the resume.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn is_first(&self) -> bool {
        self.step == self.first_step + 1
    }

    /// Seconds from the start to the result of the first step; 0 before.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn first_step_seconds(&self) -> f64 {
        self.first_step_seconds
    }

    /// The number of the epoch that the step just started completes.
    pub(super) fn completed_epoch(&self) -> Option<u64> {
        let complete = self.step > 0 && self.step.is_multiple_of(self.steps_per_epoch);
        complete.then(|| self.epochs())
    }

    /// Whether what happens every `interval` epochs happens after `epoch`; after the last everything does.
    pub(super) fn is_due(&self, epoch: u64, interval: u64) -> bool {
        self.is_done() || epoch.is_multiple_of(interval.max(1))
    }

    /// The batches of the next step. Waits for loader threads, if there are any, and never for the device.
    pub(super) fn next_batches(&mut self) -> Result<Vec<Batch>> {
        let count = self.config.train.grad_accum_steps.max(1) as u64;
        // Batches at the end of an epoch that are too few for a step are left out, so that steps never span epochs.
        let per_epoch = self.loader.batches_per_epoch();
        while self.loader.position().batch + count > per_epoch {
            self.loader.next().transpose()?;
        }
        (0..count)
            .map(|_| self.loader.next().unwrap_or_else(|| Err(Error::Failed("the loader ended early".into()))))
            .collect()
    }

    /// Starts the next step on its batches; [`Session::has_room`] says whether it may.
    pub(super) fn start(&mut self, batches: &[Batch]) -> Result<()> {
        self.session.step(self.step, batches)?;
        self.step += 1;
        Ok(())
    }

    /// A result as the run's progress. `kept` says what is left if it is not finite, which ends the run.
    pub(super) fn progress(&mut self, result: &StepResult, kept: impl FnOnce() -> String) -> Result<Progress> {
        let lr = self.session.lr(result.step);
        if !result.loss.is_finite() || !result.grad_norm.is_finite() {
            return Err(not_finite(result, lr, &kept()));
        }
        if result.step == self.first_step {
            self.first_step_seconds = self.clock.seconds();
        }
        let step = result.step + 1;
        self.arrived = step;
        Ok(Progress {
            result: *result,
            lr,
            total_steps: self.total_steps,
            epoch: step as f64 / self.steps_per_epoch as f64,
            images_per_second: self.images_per_second(step),
        })
    }

    /// Without the first step, which waits for compilers.
    fn images_per_second(&self, step: u64) -> f64 {
        let train = &self.config.train;
        let steps = step.saturating_sub(self.first_step + 1) as f64;
        let images = steps * (train.batch_size * train.grad_accum_steps.max(1)) as f64;
        images / (self.clock.seconds() - self.first_step_seconds).max(1e-6)
    }

    /// Evaluates every held-out image with the weights as they are now; `progress` hears how many are done.
    pub(super) async fn evaluate(&self, progress: impl FnMut(usize)) -> Result<Evaluation> {
        let augment = Augment::eval(&self.config.data);
        evaluate(&self.evaluator, &self.held_out, &augment, self.config.data.workers, progress).await
    }

    /// The last step's own loss may still be finite where its update was not: `evaluation` finds out. `kept` as in
    /// [`Stepper::progress`].
    pub(super) fn check(&self, evaluation: &Evaluation, kept: impl FnOnce() -> String) -> Result<()> {
        if evaluation.loss.is_finite() {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "the loss on held-out images after step {} is not finite; training stopped and nothing of it was saved: {}. \
             Try a lower train.lr, a longer train.warmup_epochs or a smaller train.clip_grad",
            self.step,
            kept()
        )))
    }
}

fn not_finite(result: &StepResult, lr: f64, kept: &str) -> Error {
    Error::Failed(format!(
        "the loss of step {} is {} and its gradient norm {}; training stopped and nothing of it was saved: {kept}. \
         Try a lower train.lr (it was {lr:.3e}), a longer train.warmup_epochs or a smaller train.clip_grad",
        result.step + 1,
        result.loss,
        result.grad_norm,
    ))
}

/// The loader of training batches, and the optimizer steps of an epoch.
fn open_loader(config: &TrainConfig, images: Arc<dyn Dataset>, position: Position) -> Result<(Loader, u64)> {
    let train = &config.train;
    let augment = Augment::train(&config.data);
    let options = LoaderOptions::train(train.batch_size, train.seed, config.data.workers, augment);
    let loader = Loader::new(images, options, position)?;
    match config.steps_per_epoch(loader.batches_per_epoch()) {
        0 => Err(Error::BadInput(format!(
            "train.grad_accum_steps = {} is more than the {} batches of an epoch; lower it or train.batch_size",
            train.grad_accum_steps,
            loader.batches_per_epoch()
        ))),
        steps => Ok((loader, steps)),
    }
}

/// The time of a run, without its pauses.
pub(super) struct Clock {
    started: Instant,
    idle: Duration,
    held_since: Option<Instant>,
}

impl Clock {
    fn start() -> Self {
        Clock { started: Instant::now(), idle: Duration::ZERO, held_since: None }
    }

    /// A pause begins, unless there is one already.
    pub(super) fn hold(&mut self) {
        self.held_since.get_or_insert_with(Instant::now);
    }

    /// It ends.
    pub(super) fn resume(&mut self) {
        self.idle += self.held_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        let held = self.held_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.started.elapsed().saturating_sub(self.idle + held).as_secs_f64()
    }
}
