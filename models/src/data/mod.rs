//! Data sets and the loader that turns them into batches.

pub mod augment;
pub mod config;
pub mod digits;
pub mod folder;
pub mod loader;
pub mod mnist;
pub mod picture;
pub mod reader;
pub mod registry;
mod resample;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;

pub use augment::Augment;
pub use config::DataConfig;
pub use digits::Digits;
pub use folder::ImageFolder;
pub use loader::{Batch, Loader, LoaderOptions, Position};
pub use mnist::Mnist;
pub use reader::ImageReader;
pub use registry::DatasetKind;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The images to learn from.
    Train,
    /// The images held out.
    Test,
}

/// The shape of every image of a data set, printed as channels x height x width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Number of values in an image.
    #[expect(clippy::len_without_is_empty, reason = "an image shape is not a collection")]
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The shape of `count` images: [count, channels, height, width].
    pub fn batch(&self, count: usize) -> [usize; 4] {
        [count, self.channels, self.height, self.width]
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// One labelled image.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// [C, H, W], values in 0..1, not normalised.
    pub pixels: Vec<f32>,
    /// Index into [`Dataset::classes`].
    pub label: u32,
}

/// What tells one state of a data set from another: a run that goes on with other samples is another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Number of samples.
    pub samples: u64,
    /// A checksum (CRC-32) of what they are called.
    pub names: u32,
}

impl Fingerprint {
    /// Of `samples` samples with these names, in their order.
    pub fn of<'a>(samples: usize, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut sum = crc32fast::Hasher::new();
        for name in names {
            sum.update(name.as_bytes());
            sum.update(&[0]);
        }
        Fingerprint { samples: samples as u64, names: sum.finalize() }
    }
}

/// A split of a labelled set of equally sized images.
pub trait Dataset: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &str;

    /// Number of samples.
    fn len(&self) -> usize;

    /// True if there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The shape of every sample's pixels.
    fn image_shape(&self) -> ImageShape;

    /// What the samples are, without reading them: their number and, where each has one, their names.
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.len(), self.classes().iter().map(String::as_str))
    }

    /// Sample number `index`, which must be below [`len`](Self::len). Reads files where the set is one of files, and
    /// then fails with the name of a file that cannot be read.
    fn get(&self, index: usize) -> Result<Sample>;
}

/// Where a data set lies, and what is wanted of it.
pub(crate) struct Place<'a> {
    /// `data.path`.
    pub(crate) path: &'a Path,
    /// `data.crop_pct`.
    pub(crate) crop_pct: f64,
    /// The shape of the images that the model takes.
    pub(crate) shape: ImageShape,
}

/// How a data set is opened from a configuration; what [`registry`] wants of each.
pub(crate) trait Open: Dataset + Sized + 'static {
    /// Whether it is read from the folder `data.path`.
    const IN_FOLDER: bool = true;

    /// Whether its pictures have any size and are brought to the model's, by `data.crop_pct`.
    const ANY_SIZE: bool = false;

    /// Opens a split.
    ///
    /// # Errors
    /// A data set that is not there, or damaged.
    fn open_split(place: &Place<'_>, split: Split) -> Result<Self>;
}
