//! A picture as a model wants it, wherever it comes from: cropped as the images it was trained on, and normalised.

use std::path::Path;

use super::{Augment, DataConfig, ImageShape, picture};
use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};

/// Reads pictures for a model.
#[derive(Clone, Debug)]
pub struct ImageReader {
    shape: ImageShape,
    crop: f64,
    augment: Augment,
}

impl ImageReader {
    /// For a model that takes images of `shape` and was trained on those of `data`.
    ///
    /// # Errors
    /// Means or deviations that do not fit the channels.
    pub fn new(data: &DataConfig, shape: ImageShape) -> Result<Self> {
        let augment = Augment::eval(data);
        augment.check(shape.channels)?;
        // As the images that were trained on: those of digits and MNIST fill their frames.
        Ok(Self { shape, crop: data.crop(), augment })
    }

    /// The shape of the images.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The pixels of a PNG or JPEG file, [channels, height, width] in 0..1.
    ///
    /// # Errors
    /// A file that is not there or no picture.
    pub fn read(&self, path: &Path) -> Result<Vec<f32>> {
        picture::load(path, self.shape, self.crop)
    }

    /// Pixels in 0..1 as the model's input: normalised.
    ///
    /// # Errors
    /// Pixels of another size.
    pub fn normalise(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let (shape, wanted, given) = (self.shape, self.shape.len(), pixels.len());
        if given != wanted {
            return Err(Error::BadInput(format!("the model takes images of {shape}, {wanted} numbers, not {given}")));
        }
        let mut input = vec![0.0; wanted];
        // Nothing is drawn: there is neither a crop at random nor a flip.
        self.augment.apply(pixels, shape, &mut Draws::new(0, Purpose::Augment, 0, 0), &mut input);
        Ok(input)
    }
}
