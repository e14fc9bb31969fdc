//! Data sets and the loader that turns them into batches.

pub mod augment;
pub mod cifar;
mod collate;
pub mod config;
pub mod digits;
pub mod emoji;
pub mod folder;
pub mod images;
pub mod loader;
pub mod mnist;
pub mod picture;
pub mod registry;
mod shape;
pub mod shards;
mod vectors;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;

pub use augment::Augment;
pub use cifar::{Cifar10, Cifar100};
pub use config::DataConfig;
pub use digits::Digits;
pub use emoji::Emoji;
pub use folder::ImageFolder;
pub use images::{Batch, ImageDataset, Mixed, Sample};
pub use loader::{Collate, Loader, LoaderOptions, Picks, Position, samples_per_epoch};
pub use mnist::Mnist;
pub use picture::{Picture, Preprocess};
pub use registry::DatasetKind;
pub use shape::ImageShape;
pub use shards::Shards;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The samples to learn from.
    Train,
    /// The samples held out.
    Test,
}

/// What tells one state of a data set from another: a run that goes on with other samples is another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Number of samples.
    pub samples: u64,
    /// A checksum (CRC-32) of what they are called, and of their classes where these stand beside the names.
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

/// A split of a set of samples. A sample is whatever the task wants: a labelled image, two sentences, a clip.
pub trait Dataset: Send + Sync {
    /// One sample.
    type Item;

    /// Its name in messages.
    fn name(&self) -> &str;

    /// Number of samples.
    fn len(&self) -> usize;

    /// True if there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the samples are, without reading them: their number and, where each has one, their names.
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.len(), [])
    }

    /// Sample number `index`, which must be below [`len`](Self::len). Several loader threads call it at once. Reads files
    /// where the set is one of files, and then fails with the name of a file that cannot be read.
    fn get(&self, index: usize) -> Result<Self::Item>;
}

/// Where a data set lies, and what is wanted of it.
pub(crate) struct Place<'a> {
    /// `data.path`.
    pub(crate) path: &'a Path,
    /// What becomes of pictures that have any size.
    pub(crate) preprocess: &'a Preprocess,
}

/// How a data set is opened from a configuration; what [`registry`] wants of each.
pub(crate) trait Open: ImageDataset + Sized + 'static {
    /// Whether it is read from the folder `data.path`.
    const IN_FOLDER: bool = true;

    /// Whether its pictures have any size and are brought to the model's, by [`Preprocess`].
    const ANY_SIZE: bool = false;

    /// Opens a split.
    ///
    /// # Errors
    /// A data set that is not there, or damaged.
    fn open_split(place: &Place<'_>, split: Split) -> Result<Self>;
}
