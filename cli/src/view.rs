//! `lara view`, and the window of `lara train --view`.

use std::path::PathBuf;

use clap::Args;
use lara_models::Model;
use lara_models::train::{Event, Summary, Trainer};
use lara_runtime::{Gpu, Tune};
use lara_viewer::pictures::Gallery;
use lara_viewer::{Error, Launch, View};

use crate::adapter::AdapterOptions;
use crate::fail::Outcome;
use crate::interrupt::Interrupt;
use crate::model;

/// Digits that are shown where no images are named.
const DIGITS: usize = 120;

/// Look at attention in a window: hover over an image, compare mechanisms, watch a model train.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara view
  lara view runs/digits
  lara view runs/digits photos/
  lara view model.safetensors cat.png --set attention.num_landmarks=25

Without arguments it opens the embedded digits and a small model that comes with the program. Files can be dropped into
the window, too. To watch a run: lara train … --view.")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: Option<PathBuf>,
    /// A picture (PNG, JPEG, WebP, GIF, BMP), or a folder of them.
    images: Option<PathBuf>,
    /// Configuration for a file that carries none: a preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", requires = "checkpoint")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance attention.mechanism=softmax; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "checkpoint")]
    set: Vec<String>,
    #[command(flatten)]
    adapter: AdapterOptions,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let subject = subject(options)?;
    let gallery = gallery(options, &subject)?;
    let mut launch = |_: &Gpu| -> Result<Launch, Error> {
        Ok(Launch { subject: subject.clone(), gallery: gallery.clone(), training: None, notes: Vec::new(), tune: None })
    };
    Ok(lara_viewer::view(&options.adapter.options(), &mut launch)?)
}

fn subject(options: &Options) -> Outcome<Model> {
    let Some(path) = &options.checkpoint else { return Ok(lara_explain::bundled()?) };
    model::open(path, options.preset.as_deref(), &options.set)
}

fn gallery(options: &Options, subject: &Model) -> Outcome<Gallery> {
    let shape = subject.image_shape();
    if let Some(path) = &options.images {
        return Ok(Gallery::open(path, &subject.preprocess()?)?);
    }
    let digits = Gallery::digits(DIGITS)?;
    Ok(if digits.shape == shape { digits } else { Gallery::empty(shape) })
}

/// Whether this build has a window; see `windowless.rs`.
pub(crate) fn is_there() -> Outcome {
    Ok(())
}

/// Trains with a window on the run. Closing it leaves the run going on.
pub(crate) fn watch(
    gpu: &Gpu,
    tune: &Tune,
    trainer: Trainer,
    Interrupt { control, pressed }: Interrupt,
    listener: impl FnMut(&Event<'_>) + Send + 'static,
) -> Outcome<Summary> {
    let view = View { control, interrupted: pressed, listener: Box::new(listener) };
    Ok(lara_viewer::view_training(gpu, tune, trainer, view)?)
}
