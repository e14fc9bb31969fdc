//! `[augment]` of a configuration: what is done to training images beyond a padded crop and a flip. Keys are timm's.

use serde::{Deserialize, Serialize};

use super::{ColorJitter, ErasingMode, Mixup, MixupMode, RandAugment, RandomErasing, RandomResizedCrop};
use crate::check::ensure;
use crate::error::Result;

/// Copies of an image in an epoch, or rectangles erased of one: more than anybody wants.
const MAX_COUNT: usize = 64;

/// Smallest alpha of a beta distribution: all weight lies at its ends long before, and beyond it the logarithms of what is
/// drawn are no numbers any more.
const LEAST_ALPHA: f64 = 1e-6;

/// How crops are resized and pictures turned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainInterpolation {
    /// Drawn each time, one of the others.
    #[default]
    Random,
    /// Linear.
    Bilinear,
    /// Cubic.
    Bicubic,
}

/// How strongly brightness, contrast and saturation are changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JitterStrength {
    /// All equally.
    Same(f64),
    /// Each on its own.
    Each([f64; 3]),
}

impl JitterStrength {
    /// Of brightness, contrast and saturation.
    pub fn each(self) -> [f64; 3] {
        match self {
            Self::Same(strength) => [strength; 3],
            Self::Each(strengths) => strengths,
        }
    }
}

/// What is done to training images beyond a padded crop and a flip. By default nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Smallest and largest share of a picture's area that a random crop takes, which is then resized to the model's size
    /// (`[0.08, 1.0]` is usual); empty for no such crop.
    pub scale: Vec<f64>,
    /// Smallest and largest ratio of such a crop's width to its height.
    pub ratio: [f64; 2],
    /// Probability that an image is flipped top to bottom.
    pub vflip: f64,
    /// How crops are resized and pictures turned.
    pub train_interpolation: TrainInterpolation,
    /// RandAugment, as timm writes it (`rand-m9-mstd0.5-inc1`); empty for none.
    pub auto_augment: String,
    /// How far brightness, contrast and saturation stray from 1: one number, or three. Without `auto_augment` only.
    pub color_jitter: JitterStrength,
    /// Probability that a part of an image is erased.
    pub reprob: f64,
    /// What is put there.
    pub remode: ErasingMode,
    /// Most parts erased of an image.
    pub recount: u32,
    /// Mixup's alpha; 0 for none.
    pub mixup: f64,
    /// CutMix's alpha; 0 for none.
    pub cutmix: f64,
    /// Smallest and largest side of CutMix's rectangles as a share of the image's, instead of `cutmix`; empty for none.
    pub cutmix_minmax: Vec<f64>,
    /// Probability that a batch (or a pair, or an image) is mixed at all.
    pub mixup_prob: f64,
    /// Probability of CutMix where both are on.
    pub mixup_switch_prob: f64,
    /// What is drawn anew for what.
    pub mixup_mode: MixupMode,
    /// Times that an image is shown in an epoch, each in another view; an epoch still has as many images as there are, so
    /// with 3 it shows a third of them. 1: every image once.
    pub aug_repeats: usize,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            scale: Vec::new(),
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            vflip: 0.0,
            train_interpolation: TrainInterpolation::Random,
            auto_augment: String::new(),
            color_jitter: JitterStrength::Same(0.0),
            reprob: 0.0,
            remode: ErasingMode::Const,
            recount: 1,
            mixup: 0.0,
            cutmix: 0.0,
            cutmix_minmax: Vec::new(),
            mixup_prob: 1.0,
            mixup_switch_prob: 0.5,
            mixup_mode: MixupMode::Batch,
            aug_repeats: 1,
        }
    }
}

impl AugmentConfig {
    /// The crop, if there is one.
    pub fn crop(&self) -> Option<RandomResizedCrop> {
        let scale = <[f64; 2]>::try_from(self.scale.as_slice()).ok()?;
        Some(RandomResizedCrop { scale, ratio: self.ratio })
    }

    /// RandAugment, if it is on.
    ///
    /// # Errors
    /// A string that has no meaning.
    pub fn rand_augment(&self) -> Result<Option<RandAugment>> {
        if self.auto_augment.is_empty() { Ok(None) } else { RandAugment::parse(&self.auto_augment).map(Some) }
    }

    /// Colour jitter, if it is on.
    pub fn jitter(&self) -> Option<ColorJitter> {
        let strength = self.color_jitter.each();
        (strength != [0.0; 3]).then_some(ColorJitter { strength })
    }

    /// Random erasing, if it is on.
    pub fn erasing(&self) -> Option<RandomErasing> {
        let erasing = RandomErasing { prob: self.reprob, mode: self.remode, count: self.recount };
        (self.reprob > 0.0).then_some(erasing)
    }

    /// Mixup and CutMix, if one of them is on.
    pub fn mixing(&self) -> Option<Mixup> {
        let cutmix_minmax = <[f64; 2]>::try_from(self.cutmix_minmax.as_slice()).ok();
        let mixup = Mixup {
            alpha: self.mixup,
            cutmix_alpha: self.cutmix,
            cutmix_minmax,
            prob: self.mixup_prob,
            switch_prob: self.mixup_switch_prob,
            mode: self.mixup_mode,
        };
        let is_on = self.mixup > 0.0 || self.cutmix > 0.0 || cutmix_minmax.is_some();
        (is_on && self.mixup_prob > 0.0).then_some(mixup)
    }

    /// Whether an image becomes a picture of 8 bits on the way.
    pub fn works_on_pictures(&self) -> bool {
        self.crop().is_some() || self.vflip > 0.0 || !self.auto_augment.is_empty() || self.jitter().is_some()
    }

    /// Checks the values, for batches of `batch_size` images.
    pub(crate) fn check(&self, batch_size: usize) -> Result<()> {
        let a = self;
        for (key, range, most) in [("scale", &a.scale, 1.0), ("cutmix_minmax", &a.cutmix_minmax, 1.0)] {
            let is_range = matches!(range[..], [low, high] if low > 0.0 && low <= high && high <= most);
            ensure(range.is_empty() || is_range, || {
                format!(
                    "augment.{key} is {range:?}; it must be [] or two shares above 0 and up to 1, the smaller one first"
                )
            })?;
        }
        ensure(a.ratio[0] > 0.0 && a.ratio[0] <= a.ratio[1] && a.ratio[1].is_finite(), || {
            format!("augment.ratio is {:?}; it must be two numbers above 0, the smaller one first", a.ratio)
        })?;
        for (key, value) in [
            ("vflip", a.vflip),
            ("reprob", a.reprob),
            ("mixup_prob", a.mixup_prob),
            ("mixup_switch_prob", a.mixup_switch_prob),
        ] {
            ensure((0.0..=1.0).contains(&value), || format!("augment.{key} is {value}; it is a probability, 0 to 1"))?;
        }
        let [brightness, contrast, saturation] = a.color_jitter.each();
        for (key, value) in [("color_jitter", brightness), ("color_jitter", contrast), ("color_jitter", saturation)] {
            ensure((0.0..=1000.0).contains(&value), || {
                format!("augment.{key} is {value}; it must be 0 (off) to 1000")
            })?;
        }
        for (key, value) in [("mixup", a.mixup), ("cutmix", a.cutmix)] {
            ensure(value == 0.0 || (LEAST_ALPHA..=1000.0).contains(&value), || {
                format!("augment.{key} is {value:?}; it must be 0 (off) or {LEAST_ALPHA} to 1000")
            })?;
        }
        for (key, value) in [("recount", a.recount as usize), ("aug_repeats", a.aug_repeats)] {
            ensure((1..=MAX_COUNT).contains(&value), || {
                format!("augment.{key} is {value}; it must be between 1 and {MAX_COUNT}")
            })?;
        }
        a.rand_augment()?;
        ensure(a.auto_augment.is_empty() || a.jitter().is_none(), || {
            "augment.color_jitter does nothing beside augment.auto_augment (so it is in timm); set one of the two to 0 or \"\""
                .into()
        })?;
        ensure(a.mixing().is_none() || batch_size.is_multiple_of(2), || {
            format!(
                "train.batch_size is {batch_size}; augment.mixup and augment.cutmix mix an image with its partner, so it must be \
                 even"
            )
        })
    }
}
