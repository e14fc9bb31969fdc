//! The training loop: batches in, steps on the device, results out. Its owner drives it tick by tick and never waits (a
//! browser, a window that draws between two steps), or lets it [`Trainer::run`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lara_runtime::{Gpu, Tune};

use super::checkpoint::{Checkpoint, DataSets, State};
use super::clock::Clock;
use super::progress::{ADVICE, Progress};
use super::run_files::RunFiles;
use super::{Control, Order, Session, StepResult, TrainConfig};
use crate::data::{Dataset, Loader, LoaderOptions, Position, Split, samples_per_epoch};
use crate::error::{Error, Result};
use crate::task::{BatchOf, Classify, LoaderOf, Task};

/// A run: session, evaluator, data and the place in them; and its files, if it keeps any. Its task is classification unless
/// said otherwise.
///
/// Whoever drives it, the steps are the same and have the same bits.
pub struct Trainer<T: Task = Classify> {
    session: Session<T>,
    config: TrainConfig,
    evaluator: T::Evaluator,
    loader: LoaderOf<T>,
    held_out: Arc<T::Dataset>,
    classes: Vec<String>,
    data: DataSets,
    pub(super) files: Option<RunFiles>,
    /// The newest evaluation.
    pub(super) evaluation: Option<T::Evaluation>,
    pub(super) clock: Clock,
    pub(super) first_step_seconds: f64,
    /// Optimizer steps started.
    step: u64,
    /// Where the batches after them begin.
    position: Position,
    /// Optimizer steps whose results arrived.
    arrived: u64,
    /// The step after which the held-out samples were evaluated last.
    evaluated: u64,
    /// The step after which what an epoch's end asks for was done last.
    closed: u64,
    first_step: u64,
    total_steps: u64,
    steps_per_epoch: u64,
    is_save_due: bool,
    /// The end was asked for.
    ended: bool,
}

impl Trainer {
    /// Prepares a new run of classification, with checkpoints and metrics in `output.dir`.
    ///
    /// # Errors
    /// As [`Trainer::start`].
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        Self::start(gpu, tune, config).await
    }

    /// Prepares a new run of classification that writes no files. Batches are made between the steps, without loader
    /// threads.
    ///
    /// # Errors
    /// Bad configuration or data, or an adapter that is too small.
    pub async fn without_files(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        Self::start_without_files(gpu, tune, config).await
    }

    /// Goes on with a run of classification from a checkpoint (or the newest one of a run's folder that is whole), bit for
    /// bit as if it had not stopped. Nothing in the folder is removed before the next checkpoint is written.
    ///
    /// # Errors
    /// As [`Trainer::start`], and a checkpoint that is damaged or does not fit, or data that have changed since.
    pub async fn resume(gpu: &Gpu, tune: &Tune, path: &Path) -> Result<Self> {
        Self::go_on(gpu, tune, path, false).await
    }

    /// [`Trainer::resume`], also where the data have changed since: with what is there now, from the same step.
    ///
    /// # Errors
    /// As [`Trainer::resume`], but for the data.
    pub async fn resume_with_changed_data(gpu: &Gpu, tune: &Tune, path: &Path) -> Result<Self> {
        Self::go_on(gpu, tune, path, true).await
    }
}

impl<T: Task> Trainer<T> {
    /// Prepares a new run, with checkpoints and metrics in `output.dir`.
    ///
    /// # Errors
    /// Bad configuration or data, an adapter that is too small, files that cannot be written, a folder that holds a run.
    pub async fn start(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        RunFiles::refuse_used(&config.output.dir)?;
        let mut trainer = Self::prepare(gpu, tune, config, None).await?;
        trainer.files = Some(RunFiles::create(config, &trainer.classes, trainer.data, tune)?);
        trainer.warn_of_initial_weights();
        Ok(trainer)
    }

    /// Prepares a new run that writes no files. Batches are made between the steps, without loader threads.
    ///
    /// # Errors
    /// Bad configuration or data, or an adapter that is too small.
    pub async fn start_without_files(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        let mut config = config.clone();
        config.data.workers = 0;
        Self::prepare(gpu, tune, &config, None).await
    }

    /// Goes on from a checkpoint, or from the newest one of a run's folder that is whole; `may_differ` allows that the data
    /// have changed since.
    ///
    /// # Errors
    /// As [`Trainer::start`], and a checkpoint that is damaged or does not fit, or data that have changed since.
    pub async fn go_on(gpu: &Gpu, tune: &Tune, path: &Path, may_differ: bool) -> Result<Self> {
        let (checkpoint, config, lock) = RunFiles::find(path)?;
        tune.adopt(checkpoint.state.kernels.clone());
        let mut trainer = Self::prepare(gpu, tune, &config, Some((&checkpoint, may_differ))).await?;
        trainer.files = Some(RunFiles::resume(&config, checkpoint, lock, trainer.data, tune)?);
        trainer.warn_of_initial_weights();
        Ok(trainer)
    }

    /// Opens the data and compiles the plans; from a checkpoint also restores what it holds.
    async fn prepare(gpu: &Gpu, tune: &Tune, config: &TrainConfig, from: Option<(&Checkpoint, bool)>) -> Result<Self> {
        config.validate()?;
        let clock = Clock::start();
        let task = T::new(config)?;
        let samples = task.open(Split::Train)?;
        let held_out = task.open(Split::Test)?;
        let classes = task.classes(&samples);
        let data = DataSets { train: samples.fingerprint(), held_out: held_out.fingerprint() };
        if let Some((checkpoint, false)) = from {
            refuse_changed(checkpoint, data)?;
        }
        let from = from.map(|(checkpoint, _)| checkpoint);
        let step = from.map_or(0, |from| from.state.step);
        let (loader, steps_per_epoch) = open_loader(config, &task, samples, from)?;
        let session = Session::of(task, gpu, tune, config, config.schedule(steps_per_epoch)).await?;
        let evaluator = session.evaluator(config.train.batch_size.min(held_out.len().max(1))).await?;
        if let Some(checkpoint) = from {
            checkpoint.restore(gpu, &session.parameters)?;
        }
        let evaluation_due = from.is_some_and(|from| from.state.evaluation_due);
        let done = if evaluation_due { 0 } else { step };
        Ok(Trainer {
            session,
            evaluator,
            position: loader.position(),
            loader,
            held_out,
            classes,
            data,
            files: None,
            evaluation: None,
            clock,
            first_step_seconds: 0.0,
            step,
            arrived: step,
            evaluated: done,
            closed: done,
            first_step: step,
            total_steps: config.train.total_epochs().saturating_mul(steps_per_epoch),
            steps_per_epoch,
            is_save_due: false,
            ended: false,
            config: config.clone(),
        })
    }

    /// Takes what has arrived, then starts up to `most_steps` steps for which the device has room and `control` gives
    /// the order. Never waits. A tick ends with the epoch, so that an evaluation sees the weights between two epochs;
    /// [`Trainer::is_evaluation_due`] says whether one is wanted, and going on without it is allowed. No step is started
    /// while [`Trainer::is_save_due`].
    ///
    /// # Errors
    /// An unreadable image, a loss that is not finite, a lost device, metrics that cannot be written.
    pub fn tick(&mut self, control: &Control, most_steps: usize) -> Result<Vec<Progress>> {
        let results = self.session.results()?;
        let arrived = self.arrive(&results)?;
        for _ in 0..most_steps {
            if self.has_ended() || self.is_save_due || !self.session.has_room() {
                break;
            }
            match control.next_order() {
                None => {
                    self.clock.hold();
                    break;
                }
                Some(Order::Stop) => self.ended = true,
                // Without files there is nothing to save to.
                Some(Order::Save) => self.is_save_due = self.files.is_some(),
                Some(Order::Step) => {
                    self.clock.resume();
                    let batches = self.next_batches()?;
                    self.session.step(self.step, &batches)?;
                    self.step += 1;
                    self.position = self.loader.position();
                    if self.completed_epoch().is_some() {
                        break;
                    }
                }
            }
        }
        Ok(arrived)
    }

    /// The batches of the next step. Waits for loader threads, if there are any, and never for the device.
    fn next_batches(&mut self) -> Result<Vec<BatchOf<T>>> {
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

    /// Results as the run's progress, logged.
    pub(super) fn arrive(&mut self, results: &[StepResult]) -> Result<Vec<Progress>> {
        results.iter().map(|result| self.progress(result)).collect()
    }

    fn progress(&mut self, result: &StepResult) -> Result<Progress> {
        let lr = self.session.lr(result.step);
        if !result.loss.is_finite() || !result.grad_norm.is_finite() {
            return Err(not_finite(result, lr, &self.kept()));
        }
        if result.step == self.first_step {
            self.first_step_seconds = self.clock.seconds();
        }
        self.arrived = result.step + 1;
        let progress = Progress {
            result: *result,
            lr,
            total_steps: self.total_steps,
            epoch: self.arrived as f64 / self.steps_per_epoch as f64,
            images_per_second: self.images_per_second(),
        };
        if let Some(files) = &mut self.files {
            files.log_step(&progress, self.config.output.log_interval)?;
        }
        Ok(progress)
    }

    /// Without the first step, which waits for compilers.
    fn images_per_second(&self) -> f64 {
        let train = &self.config.train;
        let steps = self.arrived.saturating_sub(self.first_step + 1) as f64;
        let images = steps * (train.batch_size * train.grad_accum_steps.max(1)) as f64;
        images / (self.clock.seconds() - self.first_step_seconds).max(1e-6)
    }

    /// Whether an epoch ended after which the configuration wants an evaluation that was not made yet.
    pub fn is_evaluation_due(&self) -> bool {
        !self.ended && self.evaluated < self.step && self.is_due(self.config.output.eval_interval)
    }

    /// Whether `control` asked for a checkpoint, which [`Trainer::save`] writes.
    pub fn is_save_due(&self) -> bool {
        self.is_save_due
    }

    /// Evaluates every held-out sample with the weights after the last step that was started (their average, where one
    /// is kept); `progress` hears how many are done. `None` if `control` ended the run meanwhile.
    ///
    /// # Errors
    /// Weights that are not finite, or a lost device.
    pub async fn evaluate(
        &mut self,
        control: &Control,
        mut progress: impl FnMut(usize),
    ) -> Result<Option<T::Evaluation>> {
        let go_on = |done| {
            progress(done);
            !control.is_stopped()
        };
        let evaluation = self.session.task().evaluate(&self.evaluator, &self.held_out, go_on).await;
        // The last step's own loss may still be finite where its update was not.
        let Some(evaluation) = evaluation.map_err(|error| self.diverged(error))? else {
            self.ended = true;
            return Ok(None);
        };
        self.evaluated = self.step;
        if let Some(files) = &mut self.files {
            files.log_evaluation(self.step, &evaluation)?;
        }
        self.evaluation = Some(evaluation.clone());
        Ok(Some(evaluation))
    }

    fn diverged(&self, error: Error) -> Error {
        let Error::NotFinite(began) = error else { return error };
        let (step, kept) = (self.step, self.kept());
        Error::Diverged(format!(
            "the loss on held-out images after step {step} is not finite ({began}); training stopped and nothing of it \
             was saved: {kept}. {ADVICE}"
        ))
    }

    /// Writes a checkpoint of where the run stands; `None` if it keeps no files.
    ///
    /// # Errors
    /// A full disk (what was saved before is intact), weights that are not finite, a lost device.
    pub async fn save(&mut self) -> Result<Option<PathBuf>> {
        self.is_save_due = false;
        let evaluation_due = self.closed < self.step && self.is_due(self.config.output.eval_interval);
        let Some(files) = &mut self.files else { return Ok(None) };
        files.save(&self.session, self.step, self.position, evaluation_due).await.map(Some)
    }

    /// What is left of a run that failed.
    pub(super) fn kept(&self) -> String {
        self.files.as_ref().map_or_else(|| "it keeps no checkpoints".to_owned(), RunFiles::kept)
    }

    /// The number of the epoch that the step just started completes.
    pub(super) fn completed_epoch(&self) -> Option<u64> {
        let complete = self.step > 0 && self.step.is_multiple_of(self.steps_per_epoch);
        complete.then(|| self.epochs())
    }

    /// Whether an epoch is complete after which something that happens every `interval` epochs happens; after the last
    /// everything does.
    pub(super) fn is_due(&self, interval: u64) -> bool {
        let last = self.step >= self.total_steps;
        self.completed_epoch().is_some_and(|epoch| last || epoch.is_multiple_of(interval.max(1)))
    }

    /// The epoch at whose end the run stands and whose end is not dealt with yet.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn epoch_to_close(&self) -> Option<u64> {
        self.completed_epoch().filter(|_| self.closed < self.step)
    }

    /// It is dealt with.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn close_epoch(&mut self) {
        self.closed = self.step;
    }

    /// Whether the step just started is the first since the start or the resume.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn is_first(&self) -> bool {
        self.step == self.first_step + 1
    }

    /// Optimizer steps started.
    pub fn position(&self) -> u64 {
        self.step
    }

    /// Optimizer steps of the whole run.
    pub fn total(&self) -> u64 {
        self.total_steps
    }

    /// Epochs complete.
    pub fn epochs(&self) -> u64 {
        self.step / self.steps_per_epoch
    }

    /// Whether no step will be started any more: all were, or the end was asked for.
    pub fn has_ended(&self) -> bool {
        self.ended || self.step >= self.total_steps
    }

    /// Steps that were started and whose results did not arrive yet.
    pub fn under_way(&self) -> u64 {
        self.step - self.arrived
    }

    /// The learning rate of step `step` (the first is 0).
    pub fn lr(&self, step: u64) -> f64 {
        self.session.lr(step)
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of held-out samples.
    pub fn held_out(&self) -> usize {
        self.held_out.len()
    }

    /// Model, optimizer and plans. A clone of its `parameters` sees the weights change while the run goes on.
    pub fn session(&self) -> &Session<T> {
        &self.session
    }

    /// See [`Trainer::session`].
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn session_mut(&mut self) -> &mut Session<T> {
        &mut self.session
    }

    /// The configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// An average that is still mostly noise is what is evaluated and saved: better said at the beginning.
    fn warn_of_initial_weights(&self) {
        let (train, steps) = (&self.config.train, self.total_steps);
        let share = train.initial_share_of_ema(steps);
        if train.model_ema && share > 0.02 {
            tracing::warn!(
                "after {steps} steps the averaged weights, which are evaluated and saved, will still be {:.0} % initial \
                 weights; set train.model_ema_warmup=true, or lower train.model_ema_decay (it is {})",
                100.0 * share,
                train.model_ema_decay
            );
        }
    }
}

fn not_finite(result: &StepResult, lr: f64, kept: &str) -> Error {
    Error::Diverged(format!(
        "the loss of step {} is {} and its gradient norm {}; training stopped and nothing of it was saved: {kept}. \
         Try a lower train.lr (it was {lr:.3e}), a longer train.warmup_epochs or a smaller train.clip_grad",
        result.step + 1,
        result.loss,
        result.grad_norm,
    ))
}

/// The loader of training batches where a run begins or goes on, and the optimizer steps of an epoch.
fn open_loader<T: Task>(
    config: &TrainConfig,
    task: &T,
    samples: Arc<T::Dataset>,
    from: Option<&Checkpoint>,
) -> Result<(LoaderOf<T>, u64)> {
    let train = &config.train;
    let collate = task.collate(Split::Train);
    let repeats = config.augment.aug_repeats;
    let options = LoaderOptions::train(train.batch_size, train.seed, config.data.workers, collate);
    let options = LoaderOptions { repeats, ..options };
    let batches = (samples_per_epoch(samples.len(), repeats) / train.batch_size.max(1)) as u64;
    let steps = config.steps_per_epoch(batches);
    let position =
        from.map_or_else(Position::default, |from| place(&from.state, batches, steps, train.grad_accum_steps));
    let loader = Loader::new(samples, options, position)?;
    if steps == 0 {
        return Err(Error::BadInput(format!(
            "train.grad_accum_steps = {} is more than the {batches} batches of an epoch; lower it or train.batch_size",
            train.grad_accum_steps
        )));
    }
    Ok((loader, steps))
}

/// Where the batches after a checkpoint begin. The step decides where its position does not belong to it, as when the
/// data have changed: then an epoch has other steps.
fn place(state: &State, batches: u64, steps_per_epoch: u64, micro_steps: usize) -> Position {
    let (Position { epoch, batch }, micro_steps) = (state.position, micro_steps.max(1) as u64);
    let step = epoch.checked_mul(steps_per_epoch).and_then(|step| step.checked_add(batch / micro_steps));
    if batch < batches && step == Some(state.step) {
        return state.position;
    }
    let per_epoch = steps_per_epoch.max(1);
    Position { epoch: state.step / per_epoch, batch: state.step % per_epoch * micro_steps }
}

/// A run that goes on with other data is another run: that is for the user to say.
fn refuse_changed(checkpoint: &Checkpoint, now: DataSets) -> Result<()> {
    let Some(then) = checkpoint.state.data else { return Ok(()) };
    let changed = [("training", then.train, now.train), ("held-out", then.held_out, now.held_out)];
    let Some((which, then, now)) = changed.into_iter().find(|(_, then, now)| then != now) else { return Ok(()) };
    let how = if then.samples == now.samples {
        format!("there are {} as before, but they have other names or classes", now.samples)
    } else {
        format!("there were {} and are {}", then.samples, now.samples)
    };
    Err(Error::input(
        &checkpoint.path,
        format!(
            "was saved with other {which} images: {how}, so the run would not go on as it began. Bring them back, or give \
             --accept-changed-data to go on with what is there"
        ),
    ))
}
