//! MNIST from the four IDX files of its authors (LeCun, Cortes and Burges), plain or gzipped.

use std::fs;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use super::{Dataset, Fingerprint, ImageDataset, ImageShape, Open, Place, Sample, Split};
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
    fn open_split(place: &Place<'_>, split: Split) -> Result<Self> {
        Self::open(place.path, split)
    }
}

impl ImageDataset for Mnist {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        self.shape
    }
}

impl Dataset for Mnist {
    type Item = Sample;

    fn name(&self) -> &str {
        "mnist"
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.len(), self.classes.iter().map(String::as_str))
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

/// Deflate never unpacks to more than this many times what it is given.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Pictures hardly unpack to more than this many times. What promises more is counted before it is held.
const USUAL_RATIO: u64 = 16;

fn read_idx(directory: &Path, name: &str, magic: u32) -> Result<(PathBuf, Idx)> {
    let path = directory.join(name);
    let zipped = directory.join(format!("{name}.gz"));
    let is_zipped = !path.is_file();
    let path = if is_zipped { zipped } else { path };
    if !path.is_file() {
        let wanted = [Split::Train, Split::Test].map(Mnist::file_names).concat().join(", ");
        let problem =
            format!("has no file {name} (nor {name}.gz); MNIST needs {wanted}. `lara data mnist` fetches them");
        return Err(Error::input(directory, problem));
    }
    let file = fs::File::open(&path).map_err(Error::io("read", &path))?;
    let length = file.metadata().map_err(Error::io("read", &path))?.len();
    let idx = if is_zipped { unzip_idx(&file, length, magic) } else { parse_idx(file, Length::Exactly(length), magic) };
    let refused = |refusal| match refusal {
        Refusal::Unread(error) if is_zipped => {
            Error::input(&path, format!("is not a whole gzip file ({error}); fetch it again"))
        }
        Refusal::Unread(error) => Error::io("read", &path)(error),
        Refusal::Content(problem) => Error::input(&path, problem),
    };
    Ok((path.clone(), idx.map_err(refused)?))
}

/// Unpacks a file of `length` bytes. Where its header promises suspiciously much, a first pass counts what there is and
/// keeps none of it: a file that does not hold what it promises never takes the memory of that.
fn unzip_idx(mut file: &fs::File, length: u64, magic: u32) -> std::result::Result<Idx, Refusal> {
    let most = Length::AtMost(length.saturating_mul(DEFLATE_MAX_RATIO));
    let mut unpacked = flate2::read::GzDecoder::new(file);
    let (sizes, needed) = parse_header(&mut unpacked, most, magic)?;
    if needed as u64 > length.saturating_mul(USUAL_RATIO) {
        let there = io::copy(&mut unpacked.take(needed as u64 + 1), &mut io::sink()).map_err(Refusal::Unread)?;
        if there != needed as u64 {
            return Err(unlike(&sizes, needed, there, most));
        }
        file.rewind().map_err(Refusal::Unread)?;
        unpacked = flate2::read::GzDecoder::new(file);
        parse_header(&mut unpacked, most, magic)?;
    }
    parse_values(unpacked, sizes, needed, most)
}

/// Why there is no [`Idx`]: the bytes could not be had, or they are no such file.
enum Refusal {
    Unread(io::Error),
    Content(String),
}

/// How many bytes a reader has.
#[derive(Clone, Copy)]
enum Length {
    Exactly(u64),
    AtMost(u64),
}

/// Layout: magic, one big-endian u32 per dimension, then the bytes. The magic's last byte is the number of dimensions.
///
/// The header is read first, and no more than it promises is held after it.
fn parse_idx(mut from: impl Read, length: Length, magic: u32) -> std::result::Result<Idx, Refusal> {
    let (sizes, needed) = parse_header(&mut from, length, magic)?;
    parse_values(from, sizes, needed, length)
}

/// The sizes that the header promises, and how many bytes they are.
fn parse_header(from: &mut impl Read, length: Length, magic: u32) -> std::result::Result<(Vec<usize>, usize), Refusal> {
    let dimensions = (magic & 0xff) as usize;
    let wanted = 4 + 4 * dimensions;
    let mut header = Vec::with_capacity(wanted);
    from.by_ref().take(wanted as u64).read_to_end(&mut header).map_err(Refusal::Unread)?;
    let content = |problem: String| Err(Refusal::Content(problem));
    let words: Vec<u32> = header.as_chunks::<4>().0.iter().map(|&word| u32::from_be_bytes(word)).collect();
    if let Some(found) = words.first().filter(|&&found| found != magic) {
        let what = if magic == IMAGES_MAGIC { "images" } else { "labels" };
        return content(format!("is not an IDX file of {what}: it begins with {found:#010x} instead of {magic:#010x}"));
    }
    if header.len() < wanted {
        return content(format!("is truncated: its {} bytes end inside the IDX header; fetch it again", header.len()));
    }
    let sizes: Vec<usize> = words[1..].iter().map(|&size| size as usize).collect();
    let (Length::Exactly(all) | Length::AtMost(all)) = length;
    let there = all.saturating_sub(wanted as u64);
    let promised = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let needed = promised.filter(|&needed| needed <= there).and_then(|needed| usize::try_from(needed).ok());
    let needed = needed.ok_or_else(|| match length {
        Length::Exactly(_) => truncated(&sizes, there),
        Length::AtMost(_) => Refusal::Content(format!(
            "is truncated: its header promises sizes {sizes:?} but no more than {there} bytes can be in a file of this \
             length; fetch it again"
        )),
    })?;
    Ok((sizes, needed))
}

/// What stands behind the header, and nothing more.
fn parse_values(
    mut from: impl Read,
    sizes: Vec<usize>,
    needed: usize,
    length: Length,
) -> std::result::Result<Idx, Refusal> {
    let mut values = Vec::new();
    from.by_ref().take(needed as u64).read_to_end(&mut values).map_err(Refusal::Unread)?;
    // The end of a gzip file holds its checksum, which only reading on compares.
    let more = from.take(1).read_to_end(&mut Vec::new()).map_err(Refusal::Unread)?;
    if values.len() < needed || more > 0 {
        return Err(unlike(&sizes, needed, (values.len() + more) as u64, length));
    }
    Ok(Idx { sizes, values })
}

/// The refusal of a file in which not as many bytes follow as its header promises, but `there`.
fn unlike(sizes: &[usize], needed: usize, there: u64, length: Length) -> Refusal {
    if there < needed as u64 {
        return truncated(sizes, there);
    }
    Refusal::Content(match length {
        Length::Exactly(all) => {
            let there = all.saturating_sub(4 + 4 * sizes.len() as u64);
            format!("has {there} bytes after its header, which promises {needed} (sizes {sizes:?})")
        }
        Length::AtMost(_) => format!("has more than the {needed} bytes that its header promises (sizes {sizes:?})"),
    })
}

fn truncated(sizes: &[usize], there: u64) -> Refusal {
    Refusal::Content(format!(
        "is truncated: its header promises sizes {sizes:?} but only {there} bytes follow; fetch it again"
    ))
}
