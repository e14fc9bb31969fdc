//! The training loop: batches in, steps on the device, metrics and checkpoints out; it resumes bit-exactly.

use std::path::{Path, PathBuf};

use lara_runtime::{Gpu, Parameters, Role, Tune};

use super::checkpoint::{OptimizerState, STATE_FILE};
use super::stepper::{Progress, Stepper};
use super::{
    Checkpoint, Checkpoints, Control, Evaluation, MetricsLog, Order, RunLock, Session, Snapshot, State, StepResult,
    TrainConfig, checkpoints,
};
use crate::data::Position;
use crate::error::{Error, Result};
use crate::weights::TensorView;

/// What happens during a run, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step's result arrived.
    Step(Progress),
    /// Images evaluated so far.
    Evaluating {
        /// Done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// An evaluation is complete.
    Evaluated {
        /// Optimizer steps taken.
        step: u64,
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
    /// Seconds of training, evaluation and saving, since the start or the resume, without pauses.
    pub seconds: f64,
    /// Seconds from the call to the end of the first step: recording, tuning, compiling, running.
    pub first_step_seconds: f64,
    /// Number of trainable parameters.
    pub parameters: usize,
}

/// A run in progress.
pub struct Trainer {
    stepper: Stepper,
    checkpoints: Checkpoints,
    metrics: MetricsLog,
    state: State,
    newest: Option<PathBuf>,
    evaluation: Option<Evaluation>,
    _lock: RunLock,
}

impl Trainer {
    /// Prepares a new run.
    ///
    /// # Errors
    /// Bad configuration or data, an adapter that is too small, files that cannot be written.
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        Self::prepare(gpu, tune, config, None, None).await
    }

    /// Goes on from a checkpoint (or the newest one of a run's folder), bit for bit as if it had not stopped.
    ///
    /// # Errors
    /// As [`Trainer::new`], and a checkpoint that is damaged or does not fit.
    pub async fn resume(gpu: &Gpu, tune: &Tune, path: &Path) -> Result<Self> {
        let folder = if path.join(STATE_FILE).is_file() { folder_of(path)? } else { path.to_path_buf() };
        // Before anything is read: another process may be about to write it.
        let lock = checkpoints::lock_and_recover(&folder)?;
        let checkpoint = Checkpoint::load(path)?;
        let mut config = checkpoint.config()?;
        config.output.dir = folder;
        tune.adopt(checkpoint.state.kernels.clone());
        Self::prepare(gpu, tune, &config, Some(checkpoint), lock).await
    }

    async fn prepare(
        gpu: &Gpu,
        tune: &Tune,
        config: &TrainConfig,
        from: Option<Checkpoint>,
        lock: Option<RunLock>,
    ) -> Result<Self> {
        refuse_used_folder(config, from.is_some())?;
        let (step, position) = from.as_ref().map_or((0, Position::default()), |c| (c.state.step, c.state.position));
        let stepper = Stepper::new(gpu, tune, config, step, position).await?;
        warn_of_initial_weights(config, stepper.total_steps());
        let dir = &config.output.dir;
        let lock = match lock {
            Some(lock) => lock,
            None => {
                std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
                let lock = RunLock::take(dir)?;
                // Another run may have begun there while this one was compiled.
                refuse_used_folder(config, false)?;
                lock
            }
        };
        let mut checkpoints = Checkpoints::open(dir, config.output.checkpoint_hist)?;
        let mut state = State {
            step,
            position,
            seed: config.train.seed,
            best_metric: None,
            best_step: None,
            classes: stepper.classes().to_vec(),
            config: config.to_toml()?,
            kernels: tune.choices(),
        };
        if let Some(checkpoint) = &from {
            restore(gpu, &stepper.session.parameters, checkpoint)?;
            state = State { config: state.config, kernels: state.kernels, ..checkpoint.state.clone() };
            checkpoints.repair_best(&state)?;
            if checkpoints.go_back_to(checkpoint) > 0 {
                MetricsLog::keep_copy(dir)?;
            }
        }
        let metrics = MetricsLog::open(dir, from.as_ref().map(|_| step), config.output.tensorboard)?;
        Ok(Trainer {
            stepper,
            checkpoints,
            metrics,
            state,
            newest: from.map(|c| c.path),
            evaluation: None,
            _lock: lock,
        })
    }

    /// Model, optimizer and plans. A clone of its `parameters` sees the weights change while the run goes on.
    pub fn session(&self) -> &Session {
        &self.stepper.session
    }

    /// The configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.stepper.config
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        self.stepper.classes()
    }

    /// Optimizer steps of the whole run, and those already taken.
    pub fn steps(&self) -> (u64, u64) {
        (self.stepper.total_steps(), self.stepper.step())
    }

    /// Trains to the end, or until `control` stops it: then it saves and returns, and [`Trainer::resume`] goes on. While
    /// `control` holds it the calling thread sleeps.
    ///
    /// # Errors
    /// An unreadable image, a loss that is not finite (the last checkpoint stays good), a full disk, a lost device.
    pub async fn run(mut self, control: &Control, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
        let mut interrupted = false;
        while !self.stepper.is_done() {
            match self.next_order(control, on_event)? {
                Order::Step => self.step(on_event).await?,
                Order::Save => self.save_settled(on_event).await?,
                Order::Stop => {
                    interrupted = true;
                    break;
                }
            }
        }
        self.settle(on_event)?;
        if interrupted {
            self.save(on_event).await?;
        }
        Ok(self.summary(interrupted))
    }

    fn next_order(&mut self, control: &Control, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Order> {
        if let Some(order) = control.next_order() {
            return Ok(order);
        }
        // Whoever pauses wants to see the last step's result.
        self.settle(on_event)?;
        self.stepper.clock.hold();
        let order = control.wait();
        self.stepper.clock.resume();
        Ok(order)
    }

    async fn step(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let batches = self.stepper.next_batches()?;
        while !self.stepper.session.has_room() {
            self.stepper.session.wait_oldest();
            let results = self.stepper.session.results()?;
            self.report(&results, on_event)?;
        }
        self.stepper.start(&batches)?;
        if self.stepper.is_first() {
            // Nothing is behind it that would be delayed, and its time is told apart from the others'.
            self.settle(on_event)?;
        }
        let results = self.stepper.session.results()?;
        self.report(&results, on_event)?;
        match self.stepper.completed_epoch() {
            Some(epoch) => self.end_epoch(epoch, on_event).await,
            None => Ok(()),
        }
    }

    fn summary(self, interrupted: bool) -> Summary {
        Summary {
            steps: self.stepper.step(),
            interrupted,
            best: self.state.best_metric.zip(self.state.best_step),
            evaluation: self.evaluation,
            checkpoint: self.newest,
            seconds: self.stepper.clock.seconds(),
            first_step_seconds: self.stepper.first_step_seconds(),
            parameters: self.stepper.session.parameters.count(),
        }
    }

    /// Waits for the steps under way and looks at their losses.
    fn settle(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let results = self.stepper.session.finish()?;
        self.report(&results, on_event)
    }

    fn report(&mut self, results: &[StepResult], on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        for result in results {
            let progress = self.stepper.progress(result, || kept(self.newest.as_deref()))?;
            let step = result.step + 1;
            if step.is_multiple_of(self.config().output.log_interval.max(1)) || step == progress.total_steps {
                let values = [
                    ("train/loss", result.loss),
                    ("train/accuracy", result.accuracy),
                    ("train/grad_norm", result.grad_norm),
                    ("train/lr", progress.lr),
                    ("train/images_per_second", progress.images_per_second),
                ];
                self.metrics.log(step, &values)?;
            }
            on_event(Event::Step(progress));
        }
        Ok(())
    }

    async fn end_epoch(&mut self, epoch: u64, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let output = &self.config().output;
        let due = |interval| self.stepper.is_due(epoch, interval);
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
        let (step, total) = (self.stepper.step(), self.stepper.held_out());
        let evaluation = self.stepper.evaluate(|done| on_event(Event::Evaluating { done, total })).await?;
        let values =
            [("eval/loss", evaluation.loss), ("eval/accuracy", evaluation.accuracy), ("eval/top5", evaluation.top5)];
        self.metrics.log(step, &values)?;
        on_event(Event::Evaluated { step, epoch, evaluation: &evaluation });
        self.stepper.check(&evaluation, || kept(self.newest.as_deref()))?;
        let better = self.state.best_metric.is_none_or(|best| evaluation.accuracy > best);
        if better {
            self.state.best_metric = Some(evaluation.accuracy);
            self.state.best_step = Some(step);
        }
        self.evaluation = Some(evaluation);
        Ok(better)
    }

    /// Looks at every loss first: weights behind one that is not finite must not be saved.
    async fn save_settled(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        self.settle(on_event)?;
        self.save(on_event).await.map(drop)
    }

    async fn save(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf> {
        (self.state.step, self.state.position) = (self.stepper.step(), self.stepper.position());
        let parameters = &self.stepper.session.parameters;
        let gpu = self.stepper.session.gpu();
        let read = |role| parameters.read(gpu, role);
        let (weights, first, second) =
            (read(Role::Weight).await?, read(Role::FirstMoment).await?, read(Role::SecondMoment).await?);
        let ema = if self.config().train.model_ema { Some(read(Role::Ema).await?) } else { None };
        self.metrics.sync()?;
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

/// What is left of a run that failed.
fn kept(newest: Option<&Path>) -> String {
    newest.map_or_else(
        || "no checkpoint was written before".to_owned(),
        |path| format!("{} is the last good checkpoint", path.display()),
    )
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

/// An average that is still mostly noise is what is evaluated and saved: better said at the beginning.
fn warn_of_initial_weights(config: &TrainConfig, steps: u64) {
    let share = config.train.initial_share_of_ema(steps);
    if config.train.model_ema && share > 0.02 {
        tracing::warn!(
            "after {steps} steps the averaged weights, which are evaluated and saved, will still be {:.0} % initial weights; \
             set train.model_ema_warmup=true, or lower train.model_ema_decay (it is {})",
            100.0 * share,
            config.train.model_ema_decay
        );
    }
}

/// A new run never mixes its checkpoints with an older run's.
fn refuse_used_folder(config: &TrainConfig, resumes: bool) -> Result<()> {
    match super::checkpoints::latest(&config.output.dir) {
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
    if checkpoint.is_of_format_1_with_ema() {
        tracing::info!(
            "from here on evaluations and {} are of the averaged weights; before, they were not",
            checkpoints::BEST
        );
    }
    for (role, values) in roles {
        for (index, values) in values.iter().flatten().enumerate() {
            parameters.write(gpu, role, index, values);
        }
    }
    Ok(())
}
