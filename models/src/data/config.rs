//! Where images come from and what is done to them.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::picture::{CropMode, Interpolation, Middle, Preprocess, Scale};
use super::registry::DatasetKind;
use super::{ImageDataset, ImageShape, Place, Split};
use crate::check::{divisors, ensure, shifts};
use crate::error::{Error, Result};

const MAX_WORKERS: usize = 256;

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
    /// Pictures are resized to `image_size / crop_pct`, then cropped to `image_size` (where they have any size).
    pub crop_pct: f64,
    /// What becomes of pictures with other proportions than the model's images.
    pub crop_mode: CropMode,
    /// Where the crop lies if the middle is between two pixels: at the `even` one (timm) or the `first` (Hugging Face).
    pub crop_middle: Middle,
    /// How pictures are resized.
    pub interpolation: Interpolation,
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
            crop_mode: CropMode::default(),
            crop_middle: Middle::default(),
            interpolation: Interpolation::default(),
            crop_padding: 0,
            hflip: 0.0,
            workers: 1,
        }
    }
}

impl DataConfig {
    /// How pictures are made images of `shape`. Where those of the data set come in the model's size, other pictures are
    /// cropped no further.
    ///
    /// # Errors
    /// Means or deviations that do not fit the channels.
    pub fn preprocess(&self, shape: ImageShape) -> Result<Preprocess> {
        self.fitting(shape, self.crop_share())
    }

    /// The share of a resized picture that is seen.
    pub(crate) fn crop_share(&self) -> f64 {
        if self.dataset.has_any_size() { self.crop_pct } else { 1.0 }
    }

    fn fitting(&self, shape: ImageShape, crop_pct: f64) -> Result<Preprocess> {
        let fit = Preprocess::timm(shape, crop_pct, self.crop_mode, self.interpolation);
        Preprocess { middle: self.crop_middle, ..fit }.normalised(&self.mean, &self.std)
    }

    /// Takes over how a published model fits its pictures. What settings cannot say (a border around pictures that are not
    /// resized, say) is warned of: `name` stands for the model.
    pub(crate) fn fit_as(&mut self, fit: &Preprocess, name: &str) -> Result<()> {
        let crop = [fit.shape.height, fit.shape.width];
        let (mode, before) = match fit.scale {
            Scale::Keep => (CropMode::Center, crop.map(|side| side as u64)),
            Scale::Shorter(side) => (CropMode::Center, [side; 2]),
            Scale::Cover(size) => (CropMode::Center, size),
            Scale::Exactly(size) => (CropMode::Squash, size),
            Scale::Inside(size) => (CropMode::Border, size),
        };
        let mut crop_pct = (crop[0] as f64 / before[0] as f64).min(1.0);
        if (crop[0] as f64 / crop_pct) < before[0] as f64 {
            // 224 / (224 / 235) is 234.99..
            crop_pct = crop_pct.next_down();
        }
        (self.crop_pct, self.crop_mode, self.crop_middle) = (crop_pct, mode, fit.middle);
        (self.interpolation, self.mean, self.std) = (fit.interpolation, fit.mean.clone(), fit.std.clone());
        if self.fitting(fit.shape, crop_pct)? != *fit {
            tracing::warn!(
                "{name} fits its pictures in a way that no setting says ({:?}, then {crop:?}); data.crop_mode = {mode:?} with \
                 data.crop_pct = {crop_pct} comes nearest",
                fit.scale
            );
        }
        Ok(())
    }

    /// Opens a split of the data set, for a model that takes images of `shape`.
    ///
    /// # Errors
    /// A data set that is not there or damaged, or whose images have another shape.
    pub fn open(&self, shape: ImageShape, split: Split) -> Result<Arc<dyn ImageDataset>> {
        if self.dataset.is_in_folder() && self.path.as_os_str().is_empty() {
            return Err(Error::Config(format!(
                "the data set `{}` is read from a folder: set data.path (--set data.path=FOLDER)",
                self.dataset.name()
            )));
        }
        let preprocess = self.preprocess(shape)?;
        let dataset = self.dataset.open(&Place { path: &self.path, preprocess: &preprocess }, split)?;
        let given = dataset.image_shape();
        ensure(given == shape, || {
            format!(
                "the data set {} has images of {given} but the model takes {shape} (model.in_chans = {}, \
                 model.image_size = {}); make the two agree",
                dataset.name(),
                shape.channels,
                shape.height
            )
        })?;
        Ok(dataset)
    }

    /// Checks the values, for a model that takes images of `shape`.
    pub(crate) fn check(&self, shape: ImageShape) -> Result<()> {
        let d = self;
        let channels = shape.channels;
        for (key, values) in [("mean", &d.mean), ("std", &d.std)] {
            ensure(values.len() == 1 || values.len() == channels, || {
                format!("data.{key} has {} numbers; give one, or one for each of {channels} channels", values.len())
            })?;
        }
        shifts("data.mean", &d.mean)?;
        divisors("data.std", &d.std)?;
        ensure(d.crop_pct > 0.0 && d.crop_pct <= 1.0, || {
            format!("data.crop_pct is {}; it must be above 0 and at most 1", d.crop_pct)
        })?;
        ensure(d.crop_padding <= shape.height, || {
            format!("data.crop_padding = {} is more than the image itself ({} pixels)", d.crop_padding, shape.height)
        })?;
        ensure(d.workers <= MAX_WORKERS, || {
            format!("data.workers is {}; at most {MAX_WORKERS} loader threads make sense", d.workers)
        })?;
        ensure((0.0..=1.0).contains(&d.hflip), || {
            format!("data.hflip is {}; it is a probability, 0 to 1 (0.5 is usual)", d.hflip)
        })
    }
}
