//! Where a run stands, for whoever shows it or writes it down.

use super::StepResult;

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

/// What to try when numbers run away.
pub(super) const ADVICE: &str = "Try a lower train.lr, a longer train.warmup_epochs or a smaller train.clip_grad";
