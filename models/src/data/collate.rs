//! Labelled images made into a batch.

use super::augment::{Augment, Recipe};
use super::images::{Batch, ImageDataset, Mixed, Sample};
use super::loader::{Collate, Picks};
use super::picture::Picture;
use crate::error::{Error, Result};
use crate::random::Purpose;

/// What is done to one image is a function of the seed, the epoch, its number and, where it comes several times, of which
/// time it is: [`Picks::of_sample`].
impl<D: ImageDataset + ?Sized> Collate<D> for Augment {
    type Batch = Batch;

    fn check(&self, dataset: &D) -> Result<()> {
        Augment::check(self, dataset.image_shape().channels)
    }

    fn collate(&self, dataset: &D, picks: &Picks<'_>) -> Result<Batch> {
        collate(dataset, picks, |at, out| {
            let sample = checked(dataset, picks.indices[at])?;
            self.apply(&sample.pixels, dataset.image_shape(), &mut picks.of_sample(Purpose::Augment, at), out);
            Ok(sample.label)
        })
    }
}

/// As for [`Augment`]; how a batch is mixed is a function of the seed, the epoch and its number.
impl<D: ImageDataset + ?Sized> Collate<D> for Recipe {
    type Batch = Batch;

    fn check(&self, dataset: &D) -> Result<()> {
        self.plain.check(dataset.image_shape().channels)
    }

    fn collate(&self, dataset: &D, picks: &Picks<'_>) -> Result<Batch> {
        let shape = dataset.image_shape();
        let mut batch = collate(dataset, picks, |at, out| {
            let draws = |purpose| picks.of_sample(purpose, at);
            let label = if self.crops_pictures() {
                let (picture, label) = dataset.picture(picks.indices[at] as usize)?;
                check_label(dataset, picks.indices[at], label)?;
                self.apply_to_picture(picture.with_channels(shape.channels), shape, draws, out);
                label
            } else {
                let sample = checked(dataset, picks.indices[at])?;
                if self.pictures.is_some() {
                    self.apply_to_picture(Picture::from_planes(&sample.pixels, shape)?, shape, draws, out);
                } else {
                    self.plain.apply(&sample.pixels, shape, &mut draws(Purpose::Augment), out);
                }
                sample.label
            };
            if let Some(erasing) = &self.erasing {
                erasing.apply(out, shape, &mut draws(Purpose::Erasing));
            }
            Ok(label)
        })?;
        if let Some(mixup) = &self.mixup {
            let kept = mixup.apply(&mut batch.images, shape, &mut picks.of_batch(Purpose::Mixup));
            let others = batch.labels.iter().rev();
            batch.mixed = kept.iter().zip(others).map(|(kept, &label)| Mixed { label, share: 1.0 - kept }).collect();
        }
        Ok(batch)
    }
}

/// A batch whose images `write` writes, given their places in the batch; it returns their labels.
fn collate<D: ImageDataset + ?Sized>(
    dataset: &D,
    picks: &Picks<'_>,
    mut write: impl FnMut(usize, &mut [f32]) -> Result<u32>,
) -> Result<Batch> {
    let size = dataset.image_shape().len();
    let mut images = vec![0.0; picks.indices.len() * size];
    let written = images.chunks_exact_mut(size).enumerate().map(|(at, out)| write(at, out));
    let labels = written.collect::<Result<Vec<u32>>>()?;
    Ok(Batch { images, labels, mixed: Vec::new(), indices: picks.indices.to_vec(), position: picks.position })
}

/// A sample that is what its data set says of it.
fn checked<D: ImageDataset + ?Sized>(dataset: &D, index: u32) -> Result<Sample> {
    let sample = dataset.get(index as usize)?;
    let (name, shape) = (dataset.name(), dataset.image_shape());
    check_label(dataset, index, sample.label)?;
    if sample.pixels.len() != shape.len() {
        return Err(Error::BadInput(format!(
            "image {index} of the data set {name} has {} values where {shape} has {}",
            sample.pixels.len(),
            shape.len()
        )));
    }
    Ok(sample)
}

fn check_label<D: ImageDataset + ?Sized>(dataset: &D, index: u32, label: u32) -> Result<()> {
    let classes = dataset.classes().len();
    if (label as usize) < classes {
        return Ok(());
    }
    Err(Error::BadInput(format!(
        "image {index} of the data set {} has label {label}, but its {classes} classes have labels 0 to {}",
        dataset.name(),
        classes.saturating_sub(1)
    )))
}
