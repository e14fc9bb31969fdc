//! What each stage of the loader takes of a processor, one image after the other.

use std::time::{Duration, Instant};

use lara_models::data::ImageDataset;
use lara_models::data::augment::{Filter, Recipe};
use lara_models::data::picture::{Interpolation, Resize};
use lara_models::random::{Draws, Purpose};
use serde::Serialize;

use crate::fail::Outcome;

/// A stage, and the milliseconds that an image takes in it.
#[derive(Serialize)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) milliseconds: f64,
}

const NAMES: [&str; 5] = ["decode", "crop and resize", "RandAugment", "flip and normalise", "erase"];

/// How long the processor has worked for this process; None where nobody counts that.
#[cfg(unix)]
pub(super) fn processor_time() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from)
}

/// How long the processor has worked for this process; None where nobody counts that.
#[cfg(not(unix))]
pub(super) fn processor_time() -> Option<Duration> {
    None
}

/// Takes `images` images of the data set through the recipe, in this thread, with a look at the clock between stages. The
/// clock is the processor's where there is one: what others do on the machine is not counted.
pub(super) fn measure(dataset: &dyn ImageDataset, recipe: &Recipe, seed: u64, images: usize) -> Outcome<Vec<Stage>> {
    let shape = dataset.image_shape();
    let (mut times, mut out) = ([Duration::ZERO; NAMES.len()], vec![0.0; shape.len()]);
    let fill = recipe.fill(shape.channels);
    let plain = Recipe::from(recipe.plain.clone());
    let start = Instant::now();
    let now = || processor_time().unwrap_or_else(|| start.elapsed());
    for image in 0..images {
        let draws = |purpose| Draws::new(seed, purpose, (image / dataset.len()) as u64, (image % dataset.len()) as u64);
        let mut clock = now();
        let mut tick = |stage: usize| {
            let time = now();
            times[stage] += time.saturating_sub(clock);
            clock = time;
        };
        let mut picture = dataset.picture(image % dataset.len())?.0.with_channels(shape.channels);
        tick(0);
        if let Some(pictures) = &recipe.pictures {
            if let Some(crop) = &pictures.crop {
                let crop = crop.draw(picture.height() as usize, picture.width() as usize, &mut draws(Purpose::Augment));
                let window = Some([crop.left, crop.top, crop.width, crop.height].map(|side| side as u32));
                let size = [shape.width as u64, shape.height as u64];
                picture = Resize { window, ..Resize::to(size, Interpolation::Bicubic) }.apply(&picture);
            }
            tick(1);
            if let Some(augment) = &pictures.rand_augment {
                picture = augment.apply(picture, &fill, Some(Filter::Bicubic), &mut draws(Purpose::RandAugment));
            }
            tick(2);
        }
        plain.apply_to_picture(picture, shape, draws, &mut out);
        tick(3);
        if let Some(erasing) = &recipe.erasing {
            erasing.apply(&mut out, shape, &mut draws(Purpose::Erasing));
        }
        tick(4);
    }
    let milliseconds = times.map(|time| time.as_secs_f64() * 1e3 / images as f64);
    Ok(NAMES.into_iter().zip(milliseconds).map(|(name, milliseconds)| Stage { name, milliseconds }).collect())
}
