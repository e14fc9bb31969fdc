//! Labelled images made into a batch.

use super::Augment;
use super::images::{Batch, ImageDataset, Sample};
use super::loader::{Collate, Picks};
use crate::error::{Error, Result};
use crate::random::Purpose;

/// What is done to one image is a function of the seed, the epoch and its number: [`Picks::of_sample`].
impl<D: ImageDataset + ?Sized> Collate<D> for Augment {
    type Batch = Batch;

    fn check(&self, dataset: &D) -> Result<()> {
        Augment::check(self, dataset.image_shape().channels)
    }

    fn collate(&self, dataset: &D, picks: &Picks<'_>) -> Result<Batch> {
        let shape = dataset.image_shape();
        let mut images = vec![0.0; picks.indices.len() * shape.len()];
        let mut labels = Vec::with_capacity(picks.indices.len());
        for (&index, out) in picks.indices.iter().zip(images.chunks_exact_mut(shape.len())) {
            let sample = checked(dataset, index)?;
            self.apply(&sample.pixels, shape, &mut picks.of_sample(Purpose::Augment, index), out);
            labels.push(sample.label);
        }
        Ok(Batch { images, labels, mixed: Vec::new(), indices: picks.indices.to_vec(), position: picks.position })
    }
}

/// A sample that is what its data set says of it.
fn checked<D: ImageDataset + ?Sized>(dataset: &D, index: u32) -> Result<Sample> {
    let sample = dataset.get(index as usize)?;
    let (name, shape, classes) = (dataset.name(), dataset.image_shape(), dataset.classes().len());
    if sample.label as usize >= classes {
        return Err(Error::BadInput(format!(
            "image {index} of the data set {name} has label {}, but its {classes} classes have labels 0 to {}",
            sample.label,
            classes.saturating_sub(1)
        )));
    }
    if sample.pixels.len() != shape.len() {
        return Err(Error::BadInput(format!(
            "image {index} of the data set {name} has {} values where {shape} has {}",
            sample.pixels.len(),
            shape.len()
        )));
    }
    Ok(sample)
}
