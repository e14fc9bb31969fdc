//! How a model is trained, and what a run writes.

use std::path::PathBuf;

use lara_runtime::ops::Clip;
use serde::{Deserialize, Serialize};

use crate::check::{above_zero, count, ensure, share, zero_or_above};
use crate::error::Result;
use crate::schedule::{Sched, Schedule, TimmTime};

/// Larger batches are larger than any data set that fits beside them.
const MAX_BATCH: usize = 1 << 20;

/// What gradients are clipped by; timm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipMode {
    /// The norm of the whole gradient.
    #[default]
    Norm,
    /// Each number's size.
    Value,
    /// The norm of each unit's gradient as a share of its weights' (adaptive gradient clipping; the classifier is left out).
    Agc,
}

/// What of a forward pass is computed once more in the backward pass instead of being kept (activation checkpointing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkpointing {
    /// Nothing: everything is kept.
    #[default]
    None,
    /// What is inside a block: only its input is kept. The same bits for a third more computing.
    Block,
    /// As `block` where the device would not suffice otherwise (its limit, or that of `lara train --memory`), else as `none`.
    Auto,
}

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
    /// Images a step for which `lr` is meant: with twice as many it is twice as high. 0: `lr` as it stands.
    pub lr_base_size: usize,
    /// Which cosine the learning rate follows after the warm-up.
    pub sched: Sched,
    /// With timm's cosine: a learning rate for each step, not for each epoch.
    pub sched_on_updates: bool,
    /// Learning rate at the end.
    pub min_lr: f64,
    /// Epochs of linear warm-up; may be a fraction.
    pub warmup_epochs: f64,
    /// Learning rate of the first step.
    pub warmup_lr: f64,
    /// With timm's cosine: the warm-up comes before it and is not a part of `epochs`.
    pub warmup_prefix: bool,
    /// Epochs at `min_lr` after `epochs`.
    pub cooldown_epochs: u64,
    /// What the learning rate of a block is multiplied by from the one above it; 1 for the same everywhere.
    pub layer_decay: f64,
    /// Decoupled weight decay; biases, norms and the position table are exempt.
    pub weight_decay: f64,
    /// AdamW's decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Largest size of the gradient, in the sense of `clip_mode`; 0 for no limit.
    pub clip_grad: f64,
    /// What is clipped.
    pub clip_mode: ClipMode,
    /// Label smoothing.
    pub smoothing: f64,
    /// Passes whose gradients are averaged into one step.
    pub grad_accum_steps: usize,
    /// What is computed twice to save memory.
    pub checkpoint: Checkpointing,
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
            lr_base_size: 0,
            sched: Sched::Cosine,
            sched_on_updates: false,
            min_lr: 1e-5,
            warmup_epochs: 5.0,
            warmup_lr: 1e-6,
            warmup_prefix: false,
            cooldown_epochs: 0,
            layer_decay: 1.0,
            weight_decay: 0.05,
            betas: [0.9, 0.999],
            eps: 1e-8,
            clip_grad: 5.0,
            clip_mode: ClipMode::Norm,
            smoothing: 0.1,
            grad_accum_steps: 1,
            checkpoint: Checkpointing::None,
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

    /// The peak learning rate for the images of a step.
    pub fn peak_lr(&self) -> f64 {
        let images = (self.batch_size * self.grad_accum_steps.max(1)) as f64;
        if self.lr_base_size == 0 { self.lr } else { self.lr * images / self.lr_base_size as f64 }
    }

    /// Epochs of the whole run: with those after the cosine, and those before it.
    pub fn total_epochs(&self) -> u64 {
        let before = if self.warmup_prefix { self.warmup_epochs.ceil() as u64 } else { 0 };
        self.epochs.saturating_add(self.cooldown_epochs).saturating_add(before)
    }

    /// The learning rate for epochs of `steps_per_epoch` optimizer steps.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        let Self { min_lr, warmup_lr, warmup_epochs, epochs, sched, .. } = *self;
        let warmup_steps = (warmup_epochs * steps_per_epoch as f64).round() as u64;
        let total_steps = epochs.saturating_mul(steps_per_epoch);
        let (on_updates, prefix) = (self.sched_on_updates, self.warmup_prefix);
        let timm = TimmTime { steps_per_epoch, on_updates, is_late: sched == Sched::Deit, prefix };
        let timm = (sched != Sched::Cosine).then_some(timm);
        Schedule { lr: self.peak_lr(), min_lr, warmup_lr, warmup_steps, total_steps, timm }
    }

    /// How the optimizer clips.
    pub fn clip(&self) -> Clip {
        let size = self.clip_grad as f32;
        match self.clip_mode {
            _ if self.clip_grad == 0.0 => Clip::None,
            ClipMode::Norm => Clip::Norm(size),
            ClipMode::Value => Clip::Value(size),
            ClipMode::Agc => Clip::Adaptive { factor: size, except: "head" },
        }
    }

    /// Checks the values, alone and together.
    pub(crate) fn check(&self) -> Result<()> {
        let t = self;
        ensure(t.epochs >= 1, || "train.epochs is 0; it must be at least 1".into())?;
        count("train.batch_size", t.batch_size, 1..=MAX_BATCH)?;
        count("train.grad_accum_steps", t.grad_accum_steps, 1..=MAX_BATCH)?;
        above_zero("train.lr", t.lr)?;
        count("train.lr_base_size", t.lr_base_size, 0..=MAX_BATCH)?;
        above_zero("the peak learning rate, train.lr for train.lr_base_size images a step,", t.peak_lr())?;
        for (key, value) in [("min_lr", t.min_lr), ("warmup_lr", t.warmup_lr)] {
            ensure((0.0..=t.peak_lr()).contains(&value), || {
                let scaled = if t.lr_base_size == 0 { "" } else { " scaled to the batch" };
                format!("train.{key} is {value}; it must be between 0 and train.lr{scaled} = {}", t.peak_lr())
            })?;
        }
        t.check_sched()?;
        ensure(t.layer_decay > 0.0 && t.layer_decay <= 1.0, || {
            format!(
                "train.layer_decay is {}; it must be above 0 and at most 1, which is the same everywhere",
                t.layer_decay
            )
        })?;
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

    fn check_sched(&self) -> Result<()> {
        ensure(self.sched == Sched::Timm || !self.sched_on_updates, || {
            "train.sched_on_updates = true is for train.sched = \"timm\": \"cosine\" has a rate for each step anyway, and \
             \"deit\" one for each epoch"
                .into()
        })?;
        ensure(self.sched != Sched::Cosine || !self.warmup_prefix, || {
            "train.warmup_prefix = true is for train.sched = \"timm\" or \"deit\": \"cosine\" begins after the warm-up anyway"
                .into()
        })?;
        ensure(self.epochs.checked_add(self.cooldown_epochs).is_some(), || {
            format!("train.cooldown_epochs is {}; so many epochs cannot be counted", self.cooldown_epochs)
        })
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
