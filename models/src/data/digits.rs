//! The embedded data set: UCI optical recognition of handwritten digits (see models/data/README.md for its origin and
//! licence). 1,797 grey images of 8x8, values 0..16, ten classes.

use super::{Dataset, Fingerprint, ImageDataset, ImageShape, Open, Place, Sample, Split};
use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};

static BYTES: &[u8] = include_bytes!("../../data/digits.bin");
/// 64 pixels and the label.
const RECORD: usize = 65;
const SHAPE: ImageShape = ImageShape { channels: 1, height: 8, width: 8 };
/// The split is part of the data set's definition and must never depend on a run's seed.
const SPLIT_SEED: u64 = 1998;

/// One split of the digits: 1,437 images to train on or 360 to test with.
///
/// The split is fixed and stratified: the images of each class are shuffled by a fixed seed, and one in five (rounded
/// so that the total is 360) is held out. All images come from the same 13 writers, so this measures new images, not
/// new writers.
#[derive(Debug)]
pub struct Digits {
    /// Records of this split, ascending.
    records: Vec<usize>,
    classes: Vec<String>,
}

impl Digits {
    /// Opens a split. Nothing is read: the images are in the program.
    pub fn new(split: Split) -> Self {
        let mut records = Vec::new();
        let (mut seen, mut held_out) = (0usize, 0usize);
        for class in 0..10u8 {
            let mut members: Vec<usize> = (0..BYTES.len() / RECORD).filter(|&i| label(i) == class).collect();
            Draws::new(SPLIT_SEED, Purpose::Split, 0, u64::from(class)).shuffle(&mut members);
            // Rounding the running total, not each class, makes the whole exactly one in five.
            seen += members.len();
            let tests = seen.div_ceil(5) - held_out;
            held_out += tests;
            records.extend_from_slice(match split {
                Split::Test => &members[..tests],
                Split::Train => &members[tests..],
            });
        }
        records.sort_unstable();
        Self { records, classes: (0..10).map(|digit| digit.to_string()).collect() }
    }
}

fn label(record: usize) -> u8 {
    BYTES[record * RECORD + RECORD - 1]
}

impl Open for Digits {
    const IN_FOLDER: bool = false;

    fn open_split(_: &Place<'_>, split: Split) -> Result<Self> {
        Ok(Self::new(split))
    }
}

impl ImageDataset for Digits {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        SHAPE
    }
}

impl Dataset for Digits {
    type Item = Sample;

    fn name(&self) -> &str {
        "digits"
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.len(), self.classes.iter().map(String::as_str))
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let record = *self.records.get(index).ok_or_else(|| {
            Error::Failed(format!("the data set digits has {} images here; number {index} was asked for", self.len()))
        })?;
        let pixels = &BYTES[record * RECORD..][..SHAPE.len()];
        Ok(Sample {
            pixels: pixels.iter().map(|&value| f32::from(value) / 16.0).collect(),
            label: u32::from(label(record)),
        })
    }
}
