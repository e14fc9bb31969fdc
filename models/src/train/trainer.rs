//! The training loop: batches in, steps on the device, metrics and checkpoints out; it resumes bit-exactly.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lara_runtime::{Gpu, Parameters, Role, Tune};

use super::checkpoint::OptimizerState;
use super::evaluate::{Evaluation, evaluate};
use super::{Checkpoint, Checkpoints, MetricsLog, Session, Snapshot, State, StepResult, TrainConfig};
use crate::data::{self, Augment, Batch, Dataset, Loader, LoaderOptions, Position, Split};
use crate::error::{Error, Result};
use crate::predictor::Predictor;
use crate::weights::TensorView;

/// What happens during a run, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step's result arrived.
    Step {
        /// The result.
        result: &'a StepResult,
        /// Its learning rate.
        lr: f64,
        /// Optimizer steps of the whole run.
        total_steps: u64,
        /// Epochs complete, with the fraction of the current one.
        epoch: f64,
        /// Images a second since the run started or resumed.
        images_per_second: f64,
    },
    /// Images evaluated so far.
    Evaluating {
        /// Done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// An evaluation is complete.
    Evaluated {
        /// Epochs complete.
        epoch: u64,
        /// The result.
        evaluation: &'a Evaluation,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// How a run ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// Optimizer steps taken in all.
    pub steps: u64,
    /// Whether the run was interrupted and can be resumed.
    pub interrupted: bool,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// Best accuracy on the held-out images, and its step.
    pub best: Option<(f64, u64)>,
    /// Newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Seconds of training, evaluation and saving, since the start or the resume.
    pub seconds: f64,
    /// Seconds from the call to the end of the first step: recording, tuning, compiling, running.
    pub first_step_seconds: f64,
    /// Number of trainable parameters.
    pub parameters: usize,
}

/// A run in progress.
pub struct Trainer {
    session: Session,
    evaluator: Predictor,
    config: TrainConfig,
    loader: Loader,
    held_out: Arc<dyn Dataset>,
    checkpoints: Checkpoints,
    metrics: MetricsLog,
    state: State,
    total_steps: u64,
    steps_per_epoch: u64,
    started: Instant,
    first_step: u64,
    first_step_seconds: f64,
    newest: Option<PathBuf>,
    evaluation: Option<Evaluation>,
}

impl Trainer {
    /// Prepares a new run.
    ///
    /// # Errors
    /// Bad configuration or data, an adapter that is too small, files that cannot be written.
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        Self::prepare(gpu, tune, config, None).await
    }

    /// Goes on from a checkpoint (or the newest one of a run's folder), bit for bit as if it had not stopped.
    ///
    /// # Errors
    /// As [`Trainer::new`], and a checkpoint that is damaged or does not fit.
    pub async fn resume(gpu: &Gpu, tune: &Tune, path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::load(path)?;
        let mut config = checkpoint.config()?;
        config.output.dir = folder_of(&checkpoint.path)?;
        tune.adopt(checkpoint.state.kernels.clone());
        Self::prepare(gpu, tune, &config, Some(checkpoint)).await
    }

    async fn prepare(gpu: &Gpu, tune: &Tune, config: &TrainConfig, from: Option<Checkpoint>) -> Result<Self> {
        config.validate()?;
        refuse_used_folder(config, from.is_some())?;
        let started = Instant::now();
        let images = data::open(&config.data, &config.model, Split::Train)?;
        let held_out = data::open(&config.data, &config.model, Split::Test)?;
        let position = from.as_ref().map_or_else(Position::default, |c| c.state.position);
        let classes = images.classes().to_vec();
        let (loader, steps_per_epoch) = open_loader(config, images, position)?;
        let train = &config.train;
        let schedule = config.schedule(steps_per_epoch);
        let mut session = Session::new(gpu, tune, config, schedule).await?;
        let batch = train.batch_size.min(held_out.len().max(1));
        let evaluator = session.predictor(batch, false).await?;
        let checkpoints = Checkpoints::open(&config.output.dir, config.output.checkpoint_hist)?;
        let mut state = State {
            step: 0,
            position,
            seed: train.seed,
            best_metric: None,
            best_step: None,
            classes,
            config: config.to_toml()?,
            kernels: tune.choices(),
        };
        if let Some(checkpoint) = &from {
            restore(gpu, &session.parameters, checkpoint)?;
            state = State { config: state.config, kernels: state.kernels, ..checkpoint.state.clone() };
            checkpoints.discard_after(state.step)?;
        }
        let metrics =
            MetricsLog::open(&config.output.dir, from.as_ref().map(|_| state.step), config.output.tensorboard)?;
        let (first_step, total_steps) = (state.step, train.epochs * steps_per_epoch);
        Ok(Trainer {
            session,
            evaluator,
            config: config.clone(),
            loader,
            held_out,
            checkpoints,
            metrics,
            state,
            total_steps,
            steps_per_epoch,
            started,
            first_step,
            first_step_seconds: 0.0,
            newest: from.map(|c| c.path),
            evaluation: None,
        })
    }

    /// Model, optimizer and plans.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Optimizer steps of the whole run, and those already taken.
    pub fn steps(&self) -> (u64, u64) {
        (self.total_steps, self.state.step)
    }

    /// Trains to the end, or until `stop` is set: then it saves and returns, and [`Trainer::resume`] goes on.
    ///
    /// # Errors
    /// An unreadable image, a loss that is not finite (the last checkpoint stays good), a full disk, a lost device.
    pub async fn run(mut self, stop: &AtomicBool, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
        let mut interrupted = false;
        while self.state.step < self.total_steps {
            interrupted = stop.load(Ordering::Relaxed);
            if interrupted {
                break;
            }
            let batches = self.next_batches()?;
            while !self.session.has_room() {
                self.session.wait_oldest();
                let results = self.session.results()?;
                self.report(&results, on_event)?;
            }
            self.session.step(self.state.step, &batches)?;
            if self.state.step == self.first_step {
                let results = self.session.finish()?;
                self.first_step_seconds = self.started.elapsed().as_secs_f64();
                self.report(&results, on_event)?;
            }
            self.state.step += 1;
            self.state.position = self.loader.position();
            let results = self.session.results()?;
            self.report(&results, on_event)?;
            if self.state.step.is_multiple_of(self.steps_per_epoch) {
                self.end_epoch(on_event).await?;
            }
        }
        self.settle(on_event)?;
        if interrupted {
            self.save(on_event).await?;
        }
        Ok(self.summary(interrupted))
    }

    fn summary(self, interrupted: bool) -> Summary {
        Summary {
            steps: self.state.step,
            interrupted,
            best: self.state.best_metric.zip(self.state.best_step),
            evaluation: self.evaluation,
            checkpoint: self.newest,
            seconds: self.started.elapsed().as_secs_f64(),
            first_step_seconds: self.first_step_seconds,
            parameters: self.session.parameters.count(),
        }
    }

    fn next_batches(&mut self) -> Result<Vec<Batch>> {
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

    /// Waits for the steps under way and looks at their losses.
    fn settle(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let results = self.session.finish()?;
        self.report(&results, on_event)
    }

    fn report(&mut self, results: &[StepResult], on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        for result in results {
            if !result.loss.is_finite() || !result.grad_norm.is_finite() {
                return Err(self.not_finite(result));
            }
            let step = result.step + 1;
            let images_per_second = self.images_per_second(step);
            let lr = self.session.lr(result.step);
            if step.is_multiple_of(self.config.output.log_interval.max(1)) || step == self.total_steps {
                let values = [
                    ("train/loss", result.loss),
                    ("train/accuracy", result.accuracy),
                    ("train/grad_norm", result.grad_norm),
                    ("train/lr", lr),
                    ("train/images_per_second", images_per_second),
                ];
                self.metrics.log(step, &values)?;
            }
            let epoch = step as f64 / self.steps_per_epoch as f64;
            on_event(Event::Step { result, lr, total_steps: self.total_steps, epoch, images_per_second });
        }
        Ok(())
    }

    /// Without the first step, which waits for compilers.
    fn images_per_second(&self, step: u64) -> f64 {
        let train = &self.config.train;
        let steps = step.saturating_sub(self.first_step + 1) as f64;
        let images = steps * (train.batch_size * train.grad_accum_steps.max(1)) as f64;
        images / (self.started.elapsed().as_secs_f64() - self.first_step_seconds).max(1e-6)
    }

    fn kept(&self) -> String {
        self.newest.as_ref().map_or_else(
            || "no checkpoint was written before".to_owned(),
            |path| format!("{} is the last good checkpoint", path.display()),
        )
    }

    fn not_finite(&self, result: &StepResult) -> Error {
        Error::Failed(format!(
            "the loss of step {} is {} and its gradient norm {}; training stopped and nothing of it was saved: {}. \
             Try a lower train.lr (it was {:.3e}), a longer train.warmup_epochs or a smaller train.clip_grad",
            result.step + 1,
            result.loss,
            result.grad_norm,
            self.kept(),
            self.session.lr(result.step)
        ))
    }

    fn spoilt(&self) -> Error {
        Error::Failed(format!(
            "the loss on held-out images after step {} is not finite; training stopped and nothing of it was saved: {}. \
             Try a lower train.lr, a longer train.warmup_epochs or a smaller train.clip_grad",
            self.state.step,
            self.kept()
        ))
    }

    async fn end_epoch(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let epoch = self.state.step / self.steps_per_epoch;
        let last = self.state.step >= self.total_steps;
        let due = |interval: u64| last || epoch.is_multiple_of(interval.max(1));
        let output = &self.config.output;
        let (evaluates, saves) = (due(output.eval_interval), due(output.checkpoint_interval));
        if !(evaluates || saves) {
            return Ok(());
        }
        self.settle(on_event)?;
        let better = evaluates && self.evaluate(epoch, on_event).await?;
        if saves || better {
            let path = self.save(on_event).await?;
            if better {
                self.checkpoints.promote_to_best(&path)?;
            }
        }
        Ok(())
    }

    /// Whether the model is better than ever.
    async fn evaluate(&mut self, epoch: u64, on_event: &mut dyn FnMut(Event<'_>)) -> Result<bool> {
        let augment = Augment::eval(&self.config.data);
        let total = self.held_out.len();
        let progress = |done| on_event(Event::Evaluating { done, total });
        let workers = self.config.data.workers;
        let evaluation = evaluate(&self.evaluator, &self.held_out, &augment, workers, progress).await?;
        let values =
            [("eval/loss", evaluation.loss), ("eval/accuracy", evaluation.accuracy), ("eval/top5", evaluation.top5)];
        self.metrics.log(self.state.step, &values)?;
        on_event(Event::Evaluated { epoch, evaluation: &evaluation });
        if !evaluation.loss.is_finite() {
            // The last step's own loss was still finite, its update was not: that must not be saved.
            return Err(self.spoilt());
        }
        let better = self.state.best_metric.is_none_or(|best| evaluation.accuracy > best);
        if better {
            self.state.best_metric = Some(evaluation.accuracy);
            self.state.best_step = Some(self.state.step);
        }
        self.evaluation = Some(evaluation);
        Ok(better)
    }

    async fn save(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf> {
        let parameters = &self.session.parameters;
        let gpu = self.session.gpu();
        let read = |role| parameters.read(gpu, role);
        let (weights, first, second) =
            (read(Role::Weight).await?, read(Role::FirstMoment).await?, read(Role::SecondMoment).await?);
        let ema = if self.config.train.model_ema { Some(read(Role::Ema).await?) } else { None };
        let snapshot = Snapshot {
            state: &self.state,
            weights: views(parameters, &weights),
            exp_avg: views(parameters, &first),
            exp_avg_sq: views(parameters, &second),
            ema: ema.as_ref().map(|ema| views(parameters, ema)),
        };
        let path = self.checkpoints.save(&snapshot)?;
        on_event(Event::Saved(&path));
        self.newest = Some(path.clone());
        Ok(path)
    }
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

/// The run's folder: a run may have been moved; what it writes goes where it was found.
fn folder_of(checkpoint: &Path) -> Result<PathBuf> {
    match checkpoint.parent() {
        Some(folder) if checkpoint.file_name().is_some() && !folder.as_os_str().is_empty() => Ok(folder.to_path_buf()),
        // `checkpoint-000100` or `.`, named from inside.
        _ => {
            let whole = checkpoint.canonicalize().map_err(Error::io("find", checkpoint))?;
            Ok(whole.parent().unwrap_or(&whole).to_path_buf())
        }
    }
}

/// A new run never mixes its checkpoints with an older run's.
fn refuse_used_folder(config: &TrainConfig, resumes: bool) -> Result<()> {
    match super::checkpoint::latest(&config.output.dir) {
        Some(found) if !resumes => Err(Error::BadInput(format!(
            "{} already holds a run (its newest checkpoint is {}); go on with it (--resume), or choose another output.dir",
            config.output.dir.display(),
            found.display()
        ))),
        _ => Ok(()),
    }
}

fn views<'a>(parameters: &'a Parameters, values: &'a [Vec<f32>]) -> Vec<TensorView<'a>> {
    let view = |(entry, values): (&'a lara_runtime::Entry, &'a Vec<f32>)| TensorView {
        name: entry.name.as_str().into(),
        shape: entry.shape.dims(),
        data: values,
    };
    parameters.entries().iter().zip(values).map(view).collect()
}

fn restore(gpu: &Gpu, parameters: &Parameters, checkpoint: &Checkpoint) -> Result<()> {
    let wanted = super::names_and_shapes(parameters);
    let OptimizerState { exp_avg, exp_avg_sq, ema } = checkpoint.optimizer(&wanted)?;
    let weights = checkpoint.weights(&wanted)?;
    let roles = [
        (Role::Weight, Some(weights)),
        (Role::FirstMoment, Some(exp_avg)),
        (Role::SecondMoment, Some(exp_avg_sq)),
        (Role::Ema, ema),
    ];
    for (role, values) in roles {
        for (index, values) in values.iter().flatten().enumerate() {
            parameters.write(gpu, role, index, values);
        }
    }
    Ok(())
}
