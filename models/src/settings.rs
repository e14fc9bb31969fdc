//! How a model is trained, and what a run writes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{above_zero, count, ensure, share, zero_or_above};
use crate::error::Result;
use crate::schedule::Schedule;

/// Larger batches are larger than any data set that fits beside them.
const MAX_BATCH: usize = 1 << 20;

/// How the model is trained: AdamW with warm-up and a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Images of one forward and backward pass.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end.
    pub min_lr: f64,
    /// Epochs of linear warm-up; may be a fraction.
    pub warmup_epochs: f64,
    /// Learning rate of the first step.
    pub warmup_lr: f64,
    /// Decoupled weight decay; biases, norms and the position table are exempt.
    pub weight_decay: f64,
    /// AdamW's decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 for no limit.
    pub clip_grad: f64,
    /// Label smoothing.
    pub smoothing: f64,
    /// Passes whose gradients are averaged into one step.
    pub grad_accum_steps: usize,
    /// Keep an exponential moving average of the weights. It is what is then evaluated, kept as `best/` and saved as the
    /// model; the weights that are trained go with the optimizer's state.
    pub model_ema: bool,
    /// Its decay a step.
    pub model_ema_decay: f64,
    /// Begin with a small decay that grows to `model_ema_decay`, so that the average soon forgets the initial weights.
    pub model_ema_warmup: bool,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            epochs: 300,
            batch_size: 64,
            lr: 1e-3,
            min_lr: 1e-5,
            warmup_epochs: 5.0,
            warmup_lr: 1e-6,
            weight_decay: 0.05,
            betas: [0.9, 0.999],
            eps: 1e-8,
            clip_grad: 5.0,
            smoothing: 0.1,
            grad_accum_steps: 1,
            model_ema: false,
            model_ema_decay: 0.9998,
            model_ema_warmup: false,
            seed: 1,
        }
    }
}

impl OptimConfig {
    /// Decay of the averaged weights in step `step` (the first is 0); the warm-up is that of timm's `ModelEmaV3`:
    /// 1 - (1 + step)^(-2/3), at most `model_ema_decay`.
    pub fn ema_decay(&self, step: u64) -> f64 {
        if !self.model_ema_warmup {
            return self.model_ema_decay;
        }
        (1.0 - (1.0 + step as f64).powf(-2.0 / 3.0)).min(self.model_ema_decay)
    }

    /// The share that the initial weights still have in the average after `steps` steps.
    pub fn initial_share_of_ema(&self, steps: u64) -> f64 {
        // With a warm-up the first step already forgets them.
        if self.model_ema_warmup { 0.0 } else { self.model_ema_decay.powf(steps as f64) }
    }

    /// Optimizer steps in an epoch of `batches` batches: incomplete accumulations do not step.
    pub fn steps_per_epoch(&self, batches: u64) -> u64 {
        batches / self.grad_accum_steps.max(1) as u64
    }

    /// The learning rate for epochs of `steps_per_epoch` optimizer steps.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        let Self { lr, min_lr, warmup_lr, warmup_epochs, epochs, .. } = *self;
        let warmup_steps = (warmup_epochs * steps_per_epoch as f64).round() as u64;
        Schedule { lr, min_lr, warmup_lr, warmup_steps, total_steps: epochs.saturating_mul(steps_per_epoch) }
    }

    /// Checks the values, alone and together.
    pub(crate) fn check(&self) -> Result<()> {
        let t = self;
        ensure(t.epochs >= 1, || "train.epochs is 0; it must be at least 1".into())?;
        count("train.batch_size", t.batch_size, 1..=MAX_BATCH)?;
        count("train.grad_accum_steps", t.grad_accum_steps, 1..=MAX_BATCH)?;
        above_zero("train.lr", t.lr)?;
        for (key, value) in [("min_lr", t.min_lr), ("warmup_lr", t.warmup_lr)] {
            ensure((0.0..=t.lr).contains(&value), || {
                format!("train.{key} is {value}; it must be between 0 and train.lr = {}", t.lr)
            })?;
        }
        ensure(t.warmup_epochs >= 0.0 && t.warmup_epochs <= t.epochs as f64, || {
            format!("train.warmup_epochs is {}; it must be between 0 and train.epochs = {}", t.warmup_epochs, t.epochs)
        })?;
        zero_or_above("train.weight_decay", t.weight_decay)?;
        zero_or_above("train.clip_grad", t.clip_grad)?;
        above_zero("train.eps", t.eps)?;
        share("train.betas[0]", t.betas[0])?;
        share("train.betas[1]", t.betas[1])?;
        share("train.smoothing", t.smoothing)?;
        share("train.model_ema_decay", t.model_ema_decay)?;
        ensure(i64::try_from(t.seed).is_ok(), || format!("train.seed is {}; it must be below 2^63", t.seed))
    }
}

/// What is written, where and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// Folder of the run.
    pub dir: PathBuf,
    /// Checkpoints kept, besides the best.
    pub checkpoint_hist: usize,
    /// Epochs between checkpoints.
    pub checkpoint_interval: u64,
    /// Epochs between evaluations.
    pub eval_interval: u64,
    /// Steps between lines of metrics.
    pub log_interval: u64,
    /// Write TensorBoard events next to metrics.jsonl.
    pub tensorboard: bool,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("runs/default"),
            checkpoint_hist: 3,
            checkpoint_interval: 1,
            eval_interval: 1,
            log_interval: 10,
            tensorboard: true,
        }
    }
}

impl OutputConfig {
    /// Checks the values.
    pub(crate) fn check(&self) -> Result<()> {
        let o = self;
        for (key, value) in [
            ("checkpoint_hist", o.checkpoint_hist as u64),
            ("checkpoint_interval", o.checkpoint_interval),
            ("eval_interval", o.eval_interval),
            ("log_interval", o.log_interval),
        ] {
            ensure(value >= 1, || format!("output.{key} is 0; it must be at least 1"))?;
        }
        ensure(!o.dir.as_os_str().is_empty(), || "output.dir is empty; name a folder for the run".into())
    }
}
