//! MNIST from the four IDX files of its authors (LeCun, Cortes and Burges), plain or gzipped.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{DataConfig, Dataset, ImageShape, Open, Sample, Split};
use crate::error::{Error, Result};

const CLASSES: u8 = 10;
/// Type 8 (unsigned byte) and three dimensions.
const IMAGES_MAGIC: u32 = 0x0803;
/// Type 8 (unsigned byte) and one dimension.
const LABELS_MAGIC: u32 = 0x0801;

/// One split of MNIST: 60,000 images to train on or 10,000 to test with, 28x28 grey. Other data in the same format
/// (Fashion-MNIST, other sizes of image) works as well.
#[derive(Debug)]
pub struct Mnist {
    /// [N, H, W], values 0..255.
    images: Vec<u8>,
    labels: Vec<u8>,
    shape: ImageShape,
    classes: Vec<String>,
}

impl Mnist {
    /// The files of a split: images, labels. Each may also end in `.gz`.
    pub fn file_names(split: Split) -> [&'static str; 2] {
        match split {
            Split::Train => ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
            Split::Test => ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        }
    }

    /// Reads a split from `directory` into memory (47 MB for the training images).
    ///
    /// Errors name the file: missing, cut short, not IDX, counts that differ, a label above 9.
    pub fn open(directory: impl AsRef<Path>, split: Split) -> Result<Self> {
        let directory = directory.as_ref();
        let [images_name, labels_name] = Self::file_names(split);
        let (images_path, images) = read_idx(directory, images_name, IMAGES_MAGIC)?;
        let (labels_path, labels) = read_idx(directory, labels_name, LABELS_MAGIC)?;
        let [count, height, width] = images.sizes[..] else {
            return Err(Error::input(images_path, "is not a list of images"));
        };
        if count != labels.values.len() {
            let problem = format!(
                "has {} labels for the {count} images of {}; the two files do not belong together",
                labels.values.len(),
                images_path.display()
            );
            return Err(Error::input(labels_path, problem));
        }
        if count == 0 || height == 0 || width == 0 {
            return Err(Error::input(images_path, format!("holds {count} images of {height}x{width}: nothing to use")));
        }
        if let Some(at) = labels.values.iter().position(|&label| label >= CLASSES) {
            let problem = format!("label number {at} is {}, but labels are 0 to {}", labels.values[at], CLASSES - 1);
            return Err(Error::input(labels_path, problem));
        }
        Ok(Self {
            images: images.values,
            labels: labels.values,
            shape: ImageShape { channels: 1, height, width },
            classes: (0..CLASSES).map(|digit| digit.to_string()).collect(),
        })
    }
}

impl Open for Mnist {
    fn open_split(config: &DataConfig, _: ImageShape, split: Split) -> Result<Self> {
        Self::open(&config.path, split)
    }
}

impl Dataset for Mnist {
    fn name(&self) -> &str {
        "mnist"
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        self.shape
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let label = *self.labels.get(index).ok_or_else(|| {
            Error::Failed(format!("the data set mnist has {} images here; number {index} was asked for", self.len()))
        })?;
        let pixels = &self.images[index * self.shape.len()..][..self.shape.len()];
        Ok(Sample { pixels: pixels.iter().map(|&value| f32::from(value) / 255.0).collect(), label: u32::from(label) })
    }
}

/// An IDX file of unsigned bytes.
struct Idx {
    sizes: Vec<usize>,
    values: Vec<u8>,
}

fn read_idx(directory: &Path, name: &str, magic: u32) -> Result<(PathBuf, Idx)> {
    let path = directory.join(name);
    let zipped = directory.join(format!("{name}.gz"));
    let (path, bytes) = if path.is_file() {
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        (path, bytes)
    } else if zipped.is_file() {
        let file = fs::File::open(&zipped).map_err(Error::io("read", &zipped))?;
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::input(&zipped, format!("is not a whole gzip file ({error}); fetch it again")))?;
        (zipped, bytes)
    } else {
        let wanted = [Split::Train, Split::Test].map(Mnist::file_names).concat().join(", ");
        let problem =
            format!("has no file {name} (nor {name}.gz); MNIST needs {wanted}. `lara data mnist` fetches them");
        return Err(Error::input(directory, problem));
    };
    let idx = parse_idx(bytes, magic).map_err(|problem| Error::input(&path, problem))?;
    Ok((path, idx))
}

/// Layout: magic, one big-endian u32 per dimension, then the bytes. The magic's last byte is the number of dimensions.
fn parse_idx(mut bytes: Vec<u8>, magic: u32) -> std::result::Result<Idx, String> {
    let word = |at: usize| -> std::result::Result<u32, String> {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        let short = || format!("is truncated: its {} bytes end inside the IDX header; fetch it again", bytes.len());
        word.map(u32::from_be_bytes).ok_or_else(short)
    };
    let found = word(0)?;
    if found != magic {
        let what = if magic == IMAGES_MAGIC { "images" } else { "labels" };
        return Err(format!("is not an IDX file of {what}: it begins with {found:#010x} instead of {magic:#010x}"));
    }
    let dimensions = (magic & 0xff) as usize;
    let sizes =
        (0..dimensions).map(|i| Ok(word(4 + 4 * i)? as usize)).collect::<std::result::Result<Vec<_>, String>>()?;
    let header = 4 + 4 * dimensions;
    let needed = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let present = bytes.len() - header;
    match needed {
        Some(needed) if needed == present => {}
        Some(needed) if needed < present => {
            return Err(format!("has {present} bytes after its header, which promises {needed} (sizes {sizes:?})"));
        }
        _ => {
            return Err(format!(
                "is truncated: its header promises sizes {sizes:?} but only {present} bytes follow; fetch it again"
            ));
        }
    }
    bytes.drain(..header);
    Ok(Idx { sizes, values: bytes })
}
