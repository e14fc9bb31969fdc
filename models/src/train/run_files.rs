//! The files of a run: its lock, its checkpoints, its metrics, and what the next checkpoint will say.

use std::path::{Path, PathBuf};

use lara_runtime::Tune;

use super::checkpoint::{Checkpoint, DataSets, Learnt, STATE_FILE, State};
use super::checkpoints::{Checkpoints, latest, lock_and_recover};
use super::lock::RunLock;
use super::progress::{ADVICE, Progress};
use super::{MetricsLog, Session, TrainConfig};
use crate::data::Position;
use crate::error::{Error, Result};
use crate::task::{Score, Task};

pub(super) struct RunFiles {
    checkpoints: Checkpoints,
    metrics: MetricsLog,
    /// What is best so far, and what does not change.
    pub(super) state: State,
    /// The newest checkpoint and its step.
    pub(super) newest: Option<(PathBuf, u64)>,
    _lock: RunLock,
}

impl RunFiles {
    /// A new run never mixes its checkpoints with an older run's.
    pub(super) fn refuse_used(dir: &Path) -> Result<()> {
        let Some(found) = latest(dir) else { return Ok(()) };
        Err(Error::BadInput(format!(
            "{} already holds a run (its newest checkpoint is {}); go on with it (--resume), or choose another output.dir",
            dir.display(),
            found.display()
        )))
    }

    /// The files of a new run.
    pub(super) fn create(config: &TrainConfig, classes: &[String], data: DataSets, tune: &Tune) -> Result<Self> {
        let dir = &config.output.dir;
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let lock = RunLock::take(dir)?;
        // Another run may have begun there while this one was compiled.
        Self::refuse_used(dir)?;
        let state = State {
            step: 0,
            position: Position::default(),
            evaluation_due: false,
            seed: config.train.seed,
            best_metric: None,
            best_step: None,
            classes: classes.to_vec(),
            data: Some(data),
            config: config.to_toml()?,
            kernels: tune.choices(),
        };
        Ok(RunFiles {
            checkpoints: Checkpoints::open(dir, config.output.checkpoint_hist)?,
            metrics: MetricsLog::open(dir, None, config.output.tensorboard)?,
            state,
            newest: None,
            _lock: lock,
        })
    }

    /// The checkpoint to go on from, its configuration, and the lock of its run's folder. A run may have been moved:
    /// what it writes goes where it was found.
    pub(super) fn find(path: &Path) -> Result<(Checkpoint, TrainConfig, Option<RunLock>)> {
        let folder = if path.join(STATE_FILE).is_file() { folder_of(path)? } else { path.to_path_buf() };
        // Before anything is read: another process may be about to write it.
        let lock = lock_and_recover(&folder)?;
        let checkpoint = Checkpoint::load(path)?;
        let mut config = checkpoint.config()?;
        config.output.dir = folder;
        Ok((checkpoint, config, lock))
    }

    /// The files of a run that goes on from `from`.
    pub(super) fn resume(
        config: &TrainConfig,
        from: Checkpoint,
        lock: Option<RunLock>,
        data: DataSets,
        tune: &Tune,
    ) -> Result<Self> {
        let dir = &config.output.dir;
        let lock = lock.map_or_else(|| RunLock::take(dir), Ok)?;
        let mut checkpoints = Checkpoints::open(dir, config.output.checkpoint_hist)?;
        checkpoints.repair_best(&from.state)?;
        if checkpoints.go_back_to(&from) > 0 {
            MetricsLog::keep_copy(dir)?;
        }
        Ok(RunFiles {
            checkpoints,
            metrics: MetricsLog::open(dir, Some(from.state.step), config.output.tensorboard)?,
            newest: Some((from.path, from.state.step)),
            state: State { config: config.to_toml()?, kernels: tune.choices(), data: Some(data), ..from.state },
            _lock: lock,
        })
    }

    /// Logs a step, if it is its turn.
    pub(super) fn log_step(&mut self, progress: &Progress, interval: u64) -> Result<()> {
        let step = progress.result.step + 1;
        if !step.is_multiple_of(interval.max(1)) && step != progress.total_steps {
            return Ok(());
        }
        let values = [
            ("train/loss", progress.result.loss),
            ("train/accuracy", progress.result.accuracy),
            ("train/grad_norm", progress.result.grad_norm),
            ("train/lr", progress.lr),
            ("train/images_per_second", progress.images_per_second),
        ];
        self.metrics.log(step, &values)
    }

    /// Logs an evaluation.
    pub(super) fn log_evaluation(&mut self, step: u64, evaluation: &impl Score) -> Result<()> {
        self.metrics.log(step, &evaluation.metrics())
    }

    /// Notes an evaluation; whether the model is better than ever.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn is_best(&mut self, step: u64, evaluation: &impl Score) -> bool {
        let score = evaluation.score();
        let better = self.state.best_metric.is_none_or(|best| score > best);
        if better {
            self.state.best_metric = Some(score);
            self.state.best_step = Some(step);
        }
        better
    }

    /// Writes a checkpoint. Weights that are not finite are not saved: their own loss would only come with the next step.
    pub(super) async fn save<T: Task>(
        &mut self,
        session: &Session<T>,
        step: u64,
        position: Position,
        evaluation_due: bool,
    ) -> Result<PathBuf> {
        let (parameters, gpu) = (&session.parameters, session.gpu());
        let learnt = match Learnt::read(gpu, parameters).await {
            Err(Error::Diverged(what)) => {
                let kept = self.kept();
                return Err(Error::Diverged(format!(
                    "after step {step} {what}; nothing of it was saved: {kept}. {ADVICE}"
                )));
            }
            learnt => learnt?,
        };
        (self.state.step, self.state.position, self.state.evaluation_due) = (step, position, evaluation_due);
        // No checkpoint outlives the metrics before it.
        self.metrics.sync()?;
        let path = self.checkpoints.save(&learnt.snapshot(parameters, &self.state))?;
        self.newest = Some((path.clone(), step));
        Ok(path)
    }

    /// Makes `best/` the newest checkpoint.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn promote_to_best(&self) -> Result<()> {
        match &self.newest {
            Some((path, _)) => self.checkpoints.promote_to_best(path).map(drop),
            None => Ok(()),
        }
    }

    /// What is left of a run that failed.
    pub(super) fn kept(&self) -> String {
        self.newest.as_ref().map_or_else(
            || "no checkpoint was written before".to_owned(),
            |(path, _)| format!("{} is the last good checkpoint", path.display()),
        )
    }
}

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
