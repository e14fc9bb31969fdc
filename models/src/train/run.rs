//! A trainer that runs by itself: ticks, and between them waiting, evaluations and checkpoints. Native only.

use std::path::{Path, PathBuf};

use super::progress::Progress;
use super::run_files::RunFiles;
use super::{Control, Evaluation, Trainer};
use crate::error::{Error, Result};
use crate::task::Task;

/// What happens during a run, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a, E = Evaluation> {
    /// A step's result arrived.
    Step(Progress),
    /// Samples evaluated so far.
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
        evaluation: &'a E,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// How a run ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary<E = Evaluation> {
    /// Optimizer steps taken in all.
    pub steps: u64,
    /// Whether the run was interrupted and can be resumed.
    pub interrupted: bool,
    /// The last evaluation.
    pub evaluation: Option<E>,
    /// Best score on the held-out samples (their accuracy where they are classified), and its step.
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

type Listener<'a, T> = &'a mut dyn FnMut(Event<'_, <T as Task>::Evaluation>);

impl<T: Task> Trainer<T> {
    /// Trains to the end, or until `control` stops it: then it saves and returns, and [`Trainer::resume`] goes on. While
    /// `control` holds it the calling thread sleeps.
    ///
    /// # Errors
    /// An unreadable image, a loss that is not finite (the last checkpoint stays good), a full disk, a lost device. What
    /// can still be saved is saved, and the sentence says where the run can be resumed.
    pub async fn run(mut self, control: &Control, on_event: Listener<'_, T>) -> Result<Summary<T::Evaluation>> {
        match self.drive(control, on_event).await {
            Ok(()) => Ok(self.summary()),
            Err(error) => Err(self.saved_after(error, on_event).await),
        }
    }

    async fn drive(&mut self, control: &Control, on_event: Listener<'_, T>) -> Result<()> {
        // Not closed where it was stopped in the evaluation after an epoch.
        self.end_epoch(control, on_event).await?;
        while !self.has_ended() {
            let before = self.position();
            self.tick(control, 1)?.into_iter().for_each(|progress| on_event(Event::Step(progress)));
            if self.position() > before {
                if self.is_first() {
                    // Nothing is behind it that would be delayed, and its time is told apart from the others'.
                    self.settle(on_event)?;
                }
                self.end_epoch(control, on_event).await?;
            } else if self.is_save_due() {
                self.settle(on_event)?;
                self.save_and_tell(on_event).await?;
            } else if !self.has_ended() {
                self.wait(control, on_event)?;
            }
        }
        self.settle(on_event)?;
        if self.is_interrupted() {
            self.save_and_tell(on_event).await?;
        }
        Ok(())
    }

    /// Sleeps until a step can be started: until the device has room, or until `control` gives an order.
    fn wait(&mut self, control: &Control, on_event: Listener<'_, T>) -> Result<()> {
        if self.session().has_room() {
            // Whoever pauses wants to see the last step's result.
            self.settle(on_event)?;
            control.wait();
        } else {
            self.session().wait_oldest();
        }
        Ok(())
    }

    /// Waits for the result of every step that was started, and looks at it.
    fn settle(&mut self, on_event: Listener<'_, T>) -> Result<()> {
        while self.under_way() > 0 {
            let results = self.session_mut().finish()?;
            self.arrive(&results)?.into_iter().for_each(|progress| on_event(Event::Step(progress)));
        }
        Ok(())
    }

    /// Evaluates and saves where the configuration wants it after an epoch, if one has just ended.
    async fn end_epoch(&mut self, control: &Control, on_event: Listener<'_, T>) -> Result<()> {
        let Some(epoch) = self.epoch_to_close() else { return Ok(()) };
        let output = &self.config().output;
        let (evaluates, saves) = (self.is_due(output.eval_interval), self.is_due(output.checkpoint_interval));
        let mut better = false;
        if evaluates || saves {
            self.settle(on_event)?;
        }
        if evaluates {
            let (step, total) = (self.position(), self.held_out());
            let listen = |done| on_event(Event::Evaluating { done, total });
            let Some(evaluation) = self.evaluate(control, listen).await? else { return Ok(()) };
            on_event(Event::Evaluated { step, epoch, evaluation: &evaluation });
            better = self.files.as_mut().is_some_and(|files| files.is_best(step, &evaluation));
        }
        self.close_epoch();
        if saves || better {
            self.save_and_tell(on_event).await?;
        }
        match &self.files {
            Some(files) if better => files.promote_to_best(),
            _ => Ok(()),
        }
    }

    async fn save_and_tell(&mut self, on_event: Listener<'_, T>) -> Result<()> {
        if let Some(path) = self.save().await? {
            on_event(Event::Saved(&path));
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        self.position() < self.total() || self.epoch_to_close().is_some()
    }

    /// `error` with what is left of the run: where the weights can still be read, they are saved first.
    async fn saved_after(&mut self, error: Error, on_event: Listener<'_, T>) -> Error {
        // Theirs say what is left; and weights that are not finite, or a disk that is full, would not be saved.
        if matches!(error, Error::Diverged(_) | Error::Save { .. }) {
            return error;
        }
        let saved = match &self.files {
            None => return error,
            Some(files) => files.newest.as_ref().is_some_and(|(_, step)| *step == self.position()),
        };
        let result = if saved {
            Ok(())
        } else {
            match self.settle(on_event) {
                Ok(()) => self.save_and_tell(on_event).await,
                Err(error) => Err(error),
            }
        };
        let left = match (result, &self.files) {
            (Ok(()), Some(RunFiles { newest: Some((path, step)), .. })) => {
                format!("step {step} was saved, and --resume {} goes on from it", path.display())
            }
            _ => format!("nothing could be saved any more: {}", self.kept()),
        };
        Error::Stopped { source: Box::new(error), left }
    }

    fn summary(self) -> Summary<T::Evaluation> {
        let interrupted = self.is_interrupted();
        let (steps, parameters) = (self.position(), self.session().parameters.count());
        let (best, checkpoint) = self.files.map_or((None, None), |files| {
            (files.state.best_metric.zip(files.state.best_step), files.newest.map(|(path, _)| path))
        });
        Summary {
            steps,
            interrupted,
            evaluation: self.evaluation,
            best,
            checkpoint,
            seconds: self.clock.seconds(),
            first_step_seconds: self.first_step_seconds,
            parameters,
        }
    }
}
