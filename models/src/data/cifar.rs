//! CIFAR-10 and CIFAR-100 from the binary files of their author (Krizhevsky): `cifar-10-binary.tar.gz` and
//! `cifar-100-binary.tar.gz`, unpacked.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Dataset, ImageDataset, ImageShape, Open, Place, Sample, Split};
use crate::error::{Error, Result};

const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// One split of CIFAR: 50,000 images to train on or 10,000 to test with, 32x32 RGB, of `CLASSES` classes. Of CIFAR-100's
/// two labels it is the fine one.
#[derive(Debug)]
pub struct Cifar<const CLASSES: usize> {
    /// Records: labels, then [C, H, W], values 0..255.
    records: Vec<u8>,
    classes: Vec<String>,
}

/// Ten classes.
pub type Cifar10 = Cifar<10>;

/// A hundred classes.
pub type Cifar100 = Cifar<100>;

impl<const CLASSES: usize> Cifar<CLASSES> {
    const NAME: &str = if CLASSES == 10 { "cifar10" } else { "cifar100" };
    /// Bytes before the pixels; the last of them is the label.
    const LABELS: usize = if CLASSES == 10 { 1 } else { 2 };
    const RECORD: usize = Self::LABELS + SHAPE.channels * SHAPE.height * SHAPE.width;

    /// The files of a split.
    pub fn file_names(split: Split) -> &'static [&'static str] {
        match (CLASSES, split) {
            (10, Split::Train) => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            (10, Split::Test) => &["test_batch.bin"],
            (_, Split::Train) => &["train.bin"],
            (_, Split::Test) => &["test.bin"],
        }
    }

    /// Reads a split from `directory`, or from the folder within it that unpacking makes, into memory (154 MB for the
    /// training images).
    ///
    /// # Errors
    /// A file that is missing, not a whole number of records or with a label that there is not, by its name.
    pub fn open(directory: impl AsRef<Path>, split: Split) -> Result<Self> {
        let (unpacked, names) = match CLASSES {
            10 => ("cifar-10-batches-bin", "batches.meta.txt"),
            _ => ("cifar-100-binary", "fine_label_names.txt"),
        };
        let directory = directory.as_ref();
        let within = directory.join(unpacked);
        let directory = if within.is_dir() { within } else { directory.to_path_buf() };
        let mut records = Vec::new();
        for name in Self::file_names(split) {
            records.extend(Self::read(&directory, name)?);
        }
        Ok(Self { records, classes: Self::class_names(&directory.join(names))? })
    }

    fn read(directory: &Path, name: &str) -> Result<Vec<u8>> {
        let path: PathBuf = directory.join(name);
        if !path.is_file() {
            let wanted = [Split::Train, Split::Test].map(Self::file_names).concat().join(", ");
            let problem = format!("has no file {name}; {} needs {wanted} of the binary version", Self::NAME);
            return Err(Error::input(directory, problem));
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(Self::RECORD) {
            let problem = format!(
                "has {} bytes, which are no whole number of records of {} bytes; fetch it again",
                bytes.len(),
                Self::RECORD
            );
            return Err(Error::input(path, problem));
        }
        let labels = bytes.iter().skip(Self::LABELS - 1).step_by(Self::RECORD);
        if let Some((at, label)) = labels.enumerate().find(|(_, label)| usize::from(**label) >= CLASSES) {
            let problem = format!("label number {at} is {label}, but labels are 0 to {}", CLASSES - 1);
            return Err(Error::input(path, problem));
        }
        Ok(bytes)
    }

    /// The names in the file beside the images; numbers where there is none.
    fn class_names(path: &Path) -> Result<Vec<String>> {
        if !path.is_file() {
            return Ok((0..CLASSES).map(|class| class.to_string()).collect());
        }
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
        if names.len() != CLASSES {
            return Err(Error::input(path, format!("has {} names where {CLASSES} are expected", names.len())));
        }
        Ok(names)
    }
}

impl<const CLASSES: usize> Open for Cifar<CLASSES> {
    fn open_split(place: &Place<'_>, split: Split) -> Result<Self> {
        Self::open(place.path, split)
    }
}

impl<const CLASSES: usize> ImageDataset for Cifar<CLASSES> {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        SHAPE
    }
}

impl<const CLASSES: usize> Dataset for Cifar<CLASSES> {
    type Item = Sample;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn len(&self) -> usize {
        self.records.len() / Self::RECORD
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let record = self.records.chunks_exact(Self::RECORD).nth(index).ok_or_else(|| {
            Error::Failed(format!(
                "the data set {} has {} images here; number {index} was asked for",
                Self::NAME,
                self.len()
            ))
        })?;
        let (labels, pixels) = record.split_at(Self::LABELS);
        Ok(Sample {
            pixels: pixels.iter().map(|&value| f32::from(value) / 255.0).collect(),
            label: u32::from(labels[Self::LABELS - 1]),
        })
    }
}
