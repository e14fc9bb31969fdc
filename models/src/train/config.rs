//! The configuration of a training run. Names follow timm where it has one for the thing.

use std::path::PathBuf;

use lara_runtime::attention::{AttentionConfig, MechanismKind};
use serde::{Deserialize, Serialize};

use super::layers::LayerAttention;
use super::schedule::Schedule;
use crate::error::{Error, Result};

/// Everything that determines a run. [`super::config_source`] reads it from presets, TOML files and `--set`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The Vision Transformer.
    pub model: ModelConfig,
    /// Its attention.
    pub attention: AttentionConfig,
    /// Where images come from and what is done to them.
    pub data: DataConfig,
    /// How it is trained.
    pub train: OptimConfig,
    /// What is written, where and how often.
    pub output: OutputConfig,
}

/// How the tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalPool {
    /// The mean over the patch tokens.
    #[default]
    Avg,
    /// The class token.
    Token,
}

/// How the weights of linear layers begin; timm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with standard deviation 0.02, cut at two of them: DeiT's, for widths from 192 on.
    #[default]
    Timm,
    /// Xavier uniform and a classifier of zeros: JAX's, which narrow models learn faster from.
    Jax,
}

/// A Vision Transformer on square images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Height and width of the input, pixels.
    pub image_size: usize,
    /// Channels of the input: 1 (grey) or 3 (RGB).
    pub in_chans: usize,
    /// Height and width of a patch, pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Heads of each attention.
    pub num_heads: usize,
    /// Hidden width of the MLP as a multiple of `embed_dim`.
    pub mlp_ratio: f64,
    /// Outputs of the classifier.
    pub num_classes: usize,
    /// Prepend a learned class token.
    pub class_token: bool,
    /// How the tokens become one vector.
    pub global_pool: GlobalPool,
    /// Bias in the projection to queries, keys and values.
    pub qkv_bias: bool,
    /// How the weights of linear layers begin.
    pub weight_init: WeightInit,
    /// Dropout before the classifier and, as in DeiT, after the projections and the position table.
    pub drop_rate: f64,
    /// Stochastic depth of the last block; it grows linearly from 0 at the first.
    pub drop_path_rate: f64,
    /// Attention of single blocks, in their order, over what `[attention]` says of all; empty, or one for each block.
    pub attention_layers: Vec<LayerAttention>,
}

impl Default for ModelConfig {
    /// The paper's tiny model on ImageNet.
    fn default() -> Self {
        Self {
            image_size: 224,
            in_chans: 3,
            patch_size: 16,
            embed_dim: 192,
            depth: 12,
            num_heads: 3,
            mlp_ratio: 4.0,
            num_classes: 1000,
            class_token: false,
            global_pool: GlobalPool::Avg,
            qkv_bias: true,
            weight_init: WeightInit::Timm,
            drop_rate: 0.0,
            drop_path_rate: 0.0,
            attention_layers: Vec::new(),
        }
    }
}

impl ModelConfig {
    /// Patches along one side.
    pub fn grid_size(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patch tokens, without the class token.
    pub fn num_patches(&self) -> usize {
        self.grid_size() * self.grid_size()
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Hidden width of the MLP.
    pub fn mlp_hidden(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio).round() as usize
    }
}

/// Which data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// The embedded UCI digits, 8x8 grey.
    #[default]
    Digits,
    /// IDX files in `path`.
    Mnist,
    /// A folder of pictures: `path`/train/CLASS/*.png, `path`/val/CLASS/*.png.
    Folder,
}

/// Where images come from and what is done to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Which data set.
    pub dataset: DatasetKind,
    /// Its folder; not used by `digits`.
    pub path: PathBuf,
    /// Subtracted from values in 0..1: one number, or one a channel.
    pub mean: Vec<f64>,
    /// Divides them then: one number, or one a channel.
    pub std: Vec<f64>,
    /// Pictures are resized to `image_size / crop_pct`, then cropped to `image_size` (folder only).
    pub crop_pct: f64,
    /// Pixels added around a training image before a random crop.
    pub crop_padding: usize,
    /// Probability that a training image is flipped left to right.
    pub hflip: f64,
    /// Loader threads.
    pub workers: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: DatasetKind::default(),
            path: PathBuf::new(),
            mean: vec![0.5],
            std: vec![0.5],
            crop_pct: 0.875,
            crop_padding: 0,
            hflip: 0.0,
            workers: 1,
        }
    }
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
}

impl TrainConfig {
    /// Optimizer steps in an epoch of `batches` batches: incomplete accumulations do not step.
    pub fn steps_per_epoch(&self, batches: u64) -> u64 {
        batches / self.train.grad_accum_steps.max(1) as u64
    }

    /// The learning rate for epochs of `steps_per_epoch` optimizer steps.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        let OptimConfig { lr, min_lr, warmup_lr, warmup_epochs, epochs, .. } = self.train;
        let warmup_steps = (warmup_epochs * steps_per_epoch as f64).round() as u64;
        Schedule { lr, min_lr, warmup_lr, warmup_steps, total_steps: epochs.saturating_mul(steps_per_epoch) }
    }

    /// Checks that the values make sense, alone and together. The error says which key, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.check_model()?;
        self.check_attention()?;
        self.check_data()?;
        self.check_train()?;
        self.check_output()
    }

    fn check_model(&self) -> Result<()> {
        let m = &self.model;
        for (key, value) in [
            ("image_size", m.image_size),
            ("patch_size", m.patch_size),
            ("embed_dim", m.embed_dim),
            ("depth", m.depth),
            ("num_heads", m.num_heads),
            ("num_classes", m.num_classes),
        ] {
            ensure((1..=MAX_SIZE).contains(&value), || {
                format!("model.{key} is {value}; it must be between 1 and {MAX_SIZE}")
            })?;
        }
        ensure(matches!(m.in_chans, 1 | 3), || {
            format!("model.in_chans is {}; images are grey (1) or RGB (3)", m.in_chans)
        })?;
        ensure(m.image_size.is_multiple_of(m.patch_size), || {
            format!(
                "model.image_size = {} is not a multiple of model.patch_size = {}; choose a patch size that divides it",
                m.image_size, m.patch_size
            )
        })?;
        ensure(m.embed_dim.is_multiple_of(m.num_heads), || {
            format!(
                "model.embed_dim = {} cannot be split into model.num_heads = {} heads; choose a number that divides it",
                m.embed_dim, m.num_heads
            )
        })?;
        ensure(m.head_dim() <= MAX_HEAD_DIM, || {
            format!(
                "a head of model.embed_dim / model.num_heads = {} is wider than {MAX_HEAD_DIM}; use at least {} heads",
                m.head_dim(),
                m.embed_dim.div_ceil(MAX_HEAD_DIM)
            )
        })?;
        ensure(m.mlp_ratio.is_finite() && (1..=16 * MAX_SIZE).contains(&m.mlp_hidden()), || {
            format!("model.mlp_ratio = {} gives the MLP no usable hidden width; 4 is usual", m.mlp_ratio)
        })?;
        ensure(m.class_token || m.global_pool == GlobalPool::Avg, || {
            "model.global_pool = \"token\" needs model.class_token = true; without one use \"avg\"".into()
        })?;
        within("model.drop_rate", m.drop_rate, 0.0, 1.0)?;
        within("model.drop_path_rate", m.drop_path_rate, 0.0, 1.0)
    }

    fn check_attention(&self) -> Result<()> {
        let (tokens, layers, depth) = (self.model.num_patches(), self.model.attention_layers.len(), self.model.depth);
        ensure(layers == 0 || layers == depth, || {
            format!("model.attention_layers has {layers} entries for model.depth = {depth} blocks; give one for each")
        })?;
        for layer in 0..self.model.depth {
            let a = self.attention_of(layer)?;
            a.check().map_err(|e| match layers {
                0 => Error::Config(format!("attention.{e}")),
                _ => Error::Config(format!("model.attention_layers[{layer}]: {e}")),
            })?;
            ensure(a.mechanism != MechanismKind::Lara || (1..=tokens).contains(&a.num_landmarks), || {
                format!(
                    "attention.num_landmarks is {}; with {tokens} patches it must be between 1 and {tokens}",
                    a.num_landmarks
                )
            })?;
        }
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        let d = &self.data;
        let channels = self.model.in_chans;
        for (key, values) in [("mean", &d.mean), ("std", &d.std)] {
            ensure(values.len() == 1 || values.len() == channels, || {
                format!("data.{key} has {} numbers; give one, or one for each of {channels} channels", values.len())
            })?;
            ensure(values.iter().all(|value| value.is_finite() && (key == "mean" || *value > 0.0)), || {
                format!("data.{key} = {values:?} must hold finite numbers, and std only such above 0")
            })?;
        }
        ensure(d.crop_pct > 0.0 && d.crop_pct <= 1.0, || {
            format!("data.crop_pct is {}; it must be above 0 and at most 1", d.crop_pct)
        })?;
        ensure(d.crop_padding <= self.model.image_size, || {
            format!(
                "data.crop_padding = {} is more than the image itself ({} pixels)",
                d.crop_padding, self.model.image_size
            )
        })?;
        ensure(d.workers <= MAX_WORKERS, || {
            format!("data.workers is {}; at most {MAX_WORKERS} loader threads make sense", d.workers)
        })?;
        ensure((0.0..=1.0).contains(&d.hflip), || {
            format!("data.hflip is {}; it is a probability, 0 to 1 (0.5 is usual)", d.hflip)
        })
    }

    fn check_train(&self) -> Result<()> {
        let t = &self.train;
        for (key, value) in
            [("epochs", t.epochs), ("batch_size", t.batch_size as u64), ("grad_accum_steps", t.grad_accum_steps as u64)]
        {
            ensure(value >= 1, || format!("train.{key} is 0; it must be at least 1"))?;
        }
        ensure(t.lr.is_finite() && t.lr > 0.0, || format!("train.lr is {}; it must be above 0", t.lr))?;
        for (key, value) in [("min_lr", t.min_lr), ("warmup_lr", t.warmup_lr)] {
            ensure((0.0..=t.lr).contains(&value), || {
                format!("train.{key} is {value}; it must be between 0 and train.lr = {}", t.lr)
            })?;
        }
        ensure(t.warmup_epochs >= 0.0 && t.warmup_epochs <= t.epochs as f64, || {
            format!("train.warmup_epochs is {}; it must be between 0 and train.epochs = {}", t.warmup_epochs, t.epochs)
        })?;
        for (key, value) in [("weight_decay", t.weight_decay), ("clip_grad", t.clip_grad)] {
            ensure(value.is_finite() && value >= 0.0, || format!("train.{key} is {value}; it must be 0 or more"))?;
        }
        ensure(t.eps.is_finite() && t.eps > 0.0, || format!("train.eps is {}; it must be above 0", t.eps))?;
        within("train.betas[0]", t.betas[0], 0.0, 1.0)?;
        within("train.betas[1]", t.betas[1], 0.0, 1.0)?;
        within("train.smoothing", t.smoothing, 0.0, 1.0)?;
        within("train.model_ema_decay", t.model_ema_decay, 0.0, 1.0)?;
        ensure(i64::try_from(t.seed).is_ok(), || format!("train.seed is {}; it must be below 2^63", t.seed))
    }

    fn check_output(&self) -> Result<()> {
        let o = &self.output;
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

const MAX_WORKERS: usize = 256;

/// No side, width or count of a model comes near it; it keeps products of them from overflowing.
const MAX_SIZE: usize = 65_536;

/// The widest head that the attention kernels hold in registers and workgroup memory.
const MAX_HEAD_DIM: usize = 256;

fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Config(sentence())) }
}

/// `low <= value < high`.
fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    ensure(value >= low && value < high, || format!("{key} is {value}; it must be at least {low} and below {high}"))
}
