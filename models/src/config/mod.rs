//! The configuration of a run. Each part has its home where it is used; here they are put together. Names follow timm
//! where it has one for the thing.

pub mod source;

use std::sync::Arc;

use lara_runtime::attention::AttentionConfig;
use serde::{Deserialize, Serialize};

use crate::check::ensure;
use crate::data::augment::AugmentConfig;
use crate::data::{DataConfig, ImageDataset, Preprocess, Split};
use crate::distill::DistillConfig;
use crate::error::Result;
use crate::family::Network;
use crate::registry::ModelConfig;
use crate::schedule::Schedule;
use crate::settings::{OptimConfig, OutputConfig};

/// Everything that determines a run. [`source`] reads it from presets, TOML files and `--set`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The model.
    pub model: ModelConfig,
    /// Its attention.
    pub attention: AttentionConfig,
    /// Where images come from and what is done to them.
    pub data: DataConfig,
    /// What is done to training images beyond a padded crop and a flip.
    pub augment: AugmentConfig,
    /// How it is trained.
    pub train: OptimConfig,
    /// What it learns from a teacher.
    pub distill: DistillConfig,
    /// What is written, where and how often.
    pub output: OutputConfig,
}

impl TrainConfig {
    /// Checks that the values make sense, alone and together. The error says which key, its value and what is allowed.
    ///
    /// # Errors
    /// The first value that does not.
    pub fn validate(&self) -> Result<()> {
        self.model.check(&self.attention)?;
        self.data.check(self.model.image_shape())?;
        self.augment.check(self.train.batch_size)?;
        ensure(self.augment.crop().is_none() || self.data.crop_padding == 0, || {
            format!(
                "data.crop_padding = {} does nothing beside augment.scale, which crops pictures of any size; set it to 0",
                self.data.crop_padding
            )
        })?;
        self.train.check()?;
        self.distill.check()?;
        self.output.check()
    }

    /// The attention of block `layer`: `[attention]`, with what `model.attention_layers` says of this block.
    ///
    /// # Errors
    /// If the list names a key that attention does not have, or gives one a value of the wrong type.
    pub fn attention_of(&self, layer: usize) -> Result<AttentionConfig> {
        self.model.attention_of(&self.attention, layer)
    }

    /// The model, ready to be recorded.
    ///
    /// # Errors
    /// As [`TrainConfig::attention_of`].
    pub fn build(&self) -> Result<Box<dyn Network>> {
        self.model.build(&self.attention)
    }

    /// Opens the data set and checks that the model's input and output fit it.
    ///
    /// # Errors
    /// A data set that is not there or damaged, or that does not fit.
    pub fn open_data(&self, split: Split) -> Result<Arc<dyn ImageDataset>> {
        let dataset = self.data.open(self.model.image_shape(), split)?;
        let (classes, outputs) = (dataset.classes().len(), self.model.num_classes());
        ensure(classes == outputs, || {
            format!(
                "the data set {} has {classes} classes but model.num_classes is {outputs}; set model.num_classes={classes}",
                dataset.name()
            )
        })?;
        Ok(dataset)
    }

    /// How pictures are made what the model wants.
    ///
    /// # Errors
    /// Means or deviations that do not fit the channels.
    pub fn preprocess(&self) -> Result<Preprocess> {
        self.data.preprocess(self.model.image_shape())
    }

    /// What the learning rate is multiplied by for parameters whose names begin so, the first that fits; all by 1 if there
    /// is none.
    pub fn lr_scales(&self) -> Vec<(String, f32)> {
        let decay = self.train.layer_decay;
        if decay == 1.0 {
            return Vec::new();
        }
        let scale = |(name, above)| (name, decay.powi(above as i32) as f32);
        self.model.layers_above().into_iter().map(scale).collect()
    }

    /// Optimizer steps in an epoch of `batches` batches (see [`OptimConfig::steps_per_epoch`]).
    pub fn steps_per_epoch(&self, batches: u64) -> u64 {
        self.train.steps_per_epoch(batches)
    }

    /// The learning rate for epochs of `steps_per_epoch` optimizer steps.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        self.train.schedule(steps_per_epoch)
    }
}
