//! Training where nothing may block: a browser, or a window that draws between two steps.

use lara_runtime::{Gpu, Tune};

use super::stepper::{Progress, Stepper};
use super::{Control, Evaluation, Order, Session, TrainConfig};
use crate::data::Position;
use crate::error::Result;

/// A run that its owner drives tick by tick. It writes no files: no checkpoints, no metrics.
///
/// It takes the steps that [`Trainer`](super::Trainer) takes, with the same bits.
pub struct LiveTrainer {
    stepper: Stepper,
    evaluated: u64,
    ended: bool,
}

impl LiveTrainer {
    /// Prepares a new run. Batches are made between the steps, without loader threads.
    ///
    /// # Errors
    /// Bad configuration or data, or an adapter that is too small.
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<Self> {
        let mut config = config.clone();
        config.data.workers = 0;
        let stepper = Stepper::new(gpu, tune, &config, 0, Position::default()).await?;
        Ok(LiveTrainer { stepper, evaluated: 0, ended: false })
    }

    /// Takes what has arrived, then starts up to `most_steps` steps for which the device has room and `control` gives
    /// the order. Never waits. A tick ends with the epoch, so that an evaluation sees the weights between two epochs;
    /// [`LiveTrainer::is_evaluation_due`] says whether one is wanted, and going on without it is allowed.
    ///
    /// # Errors
    /// An unreadable image, a loss that is not finite, a lost device.
    pub fn tick(&mut self, control: &Control, most_steps: usize) -> Result<Vec<Progress>> {
        let results = self.stepper.session.results()?;
        let arrived =
            results.iter().map(|result| self.stepper.progress(result, nothing_kept)).collect::<Result<_>>()?;
        for _ in 0..most_steps {
            if self.ended || self.stepper.is_done() || !self.stepper.session.has_room() {
                break;
            }
            match control.next_order() {
                None => {
                    self.stepper.clock.hold();
                    break;
                }
                Some(Order::Stop) => self.ended = true,
                // There is nothing to save to.
                Some(Order::Save) => {}
                Some(Order::Step) => {
                    self.stepper.clock.resume();
                    let batches = self.stepper.next_batches()?;
                    self.stepper.start(&batches)?;
                    if self.stepper.completed_epoch().is_some() {
                        break;
                    }
                }
            }
        }
        Ok(arrived)
    }

    /// Whether an epoch ended after which the configuration wants an evaluation that was not made yet.
    pub fn is_evaluation_due(&self) -> bool {
        let interval = self.stepper.config.output.eval_interval;
        let epoch = self.stepper.completed_epoch();
        self.evaluated < self.stepper.step() && epoch.is_some_and(|epoch| self.stepper.is_due(epoch, interval))
    }

    /// Evaluates every held-out image with the weights after the last step that was started.
    ///
    /// # Errors
    /// Weights that are not finite, or a lost device.
    pub async fn evaluate(&mut self, progress: impl FnMut(usize)) -> Result<Evaluation> {
        let evaluation = self.stepper.evaluate(progress).await?;
        self.evaluated = self.stepper.step();
        self.stepper.check(&evaluation, nothing_kept)?;
        Ok(evaluation)
    }

    /// Optimizer steps started.
    pub fn position(&self) -> u64 {
        self.stepper.step()
    }

    /// Optimizer steps of the whole run.
    pub fn total(&self) -> u64 {
        self.stepper.total_steps()
    }

    /// Epochs complete.
    pub fn epochs(&self) -> u64 {
        self.stepper.epochs()
    }

    /// Whether no step will be started any more: all were, or the end was asked for.
    pub fn has_ended(&self) -> bool {
        self.ended || self.stepper.is_done()
    }

    /// Steps that were started and whose results did not arrive yet.
    pub fn under_way(&self) -> u64 {
        self.stepper.under_way()
    }

    /// The learning rate of step `step` (the first is 0).
    pub fn lr(&self, step: u64) -> f64 {
        self.stepper.session.lr(step)
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        self.stepper.classes()
    }

    /// Number of held-out images.
    pub fn held_out(&self) -> usize {
        self.stepper.held_out()
    }

    /// Model, optimizer and plans. A clone of its `parameters` sees the weights change.
    pub fn session(&self) -> &Session {
        &self.stepper.session
    }

    /// The configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.stepper.config
    }
}

fn nothing_kept() -> String {
    "it keeps no checkpoints".to_owned()
}
