//! Data sets and the loader that turns them into batches.

pub mod augment;
pub mod digits;
pub mod folder;
pub mod loader;
pub mod mnist;
pub mod picture;
mod resample;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::train::config::{DataConfig, DatasetKind, ModelConfig};

pub use augment::Augment;
pub use digits::Digits;
pub use folder::ImageFolder;
pub use loader::{Batch, Loader, LoaderOptions, Position};
pub use mnist::Mnist;

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

    /// Sample number `index`, which must be below [`len`](Self::len). Reads files where the set is one of files, and
    /// then fails with the name of a file that cannot be read.
    fn get(&self, index: usize) -> Result<Sample>;
}

/// Opens the data set of a configuration and checks that the model's input and output fit it.
pub fn open(data: &DataConfig, model: &ModelConfig, split: Split) -> Result<Arc<dyn Dataset>> {
    let dataset: Arc<dyn Dataset> = match data.dataset {
        DatasetKind::Digits => Arc::new(Digits::new(split)),
        DatasetKind::Mnist => Arc::new(Mnist::open(needed_path(data)?, split)?),
        DatasetKind::Folder => {
            let shape = ImageShape { channels: model.in_chans, height: model.image_size, width: model.image_size };
            Arc::new(ImageFolder::open(needed_path(data)?, split, shape, data.crop_pct)?)
        }
    };
    check_fits(dataset.as_ref(), model)?;
    Ok(dataset)
}

fn needed_path(data: &DataConfig) -> Result<&std::path::Path> {
    if data.path.as_os_str().is_empty() {
        let kind = match data.dataset {
            DatasetKind::Folder => "folder",
            _ => "mnist",
        };
        return Err(Error::Config(format!(
            "the data set `{kind}` is read from a folder: set data.path (--set data.path=FOLDER)"
        )));
    }
    Ok(&data.path)
}

fn check_fits(dataset: &dyn Dataset, model: &ModelConfig) -> Result<()> {
    let shape = dataset.image_shape();
    let input = ImageShape { channels: model.in_chans, height: model.image_size, width: model.image_size };
    if shape != input {
        return Err(Error::Config(format!(
            "the data set {} has images of {shape} but the model takes {input} (model.in_chans = {}, model.image_size = {}); \
             make the two agree",
            dataset.name(),
            model.in_chans,
            model.image_size
        )));
    }
    if dataset.classes().len() != model.num_classes {
        return Err(Error::Config(format!(
            "the data set {} has {} classes but model.num_classes is {}; set model.num_classes={}",
            dataset.name(),
            dataset.classes().len(),
            model.num_classes,
            dataset.classes().len()
        )));
    }
    Ok(())
}
