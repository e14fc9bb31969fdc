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

/// Look at attention in a window: hover over an image, compare mechanisms, watch a model train.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara view
  lara view --digits
  lara view runs/digits
  lara view runs/digits photos/
  lara view model.safetensors cat.png --set attention.num_landmarks=25

Without arguments it opens a small model of emoji and some drawings, which come with the program. Files can be dropped into
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
    /// The other model that comes with the program: embedded handwritten digits, pixel by pixel.
    #[arg(long, conflicts_with = "checkpoint")]
    digits: bool,
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
    match &options.checkpoint {
        Some(path) => model::open(path, options.preset.as_deref(), &options.set),
        None if options.digits => Ok(lara_explain::bundled_digits()?),
        None => Ok(lara_explain::bundled()?),
    }
}

fn gallery(options: &Options, subject: &Model) -> Outcome<Gallery> {
    if let Some(path) = &options.images {
        return Ok(Gallery::open(path, &subject.preprocess()?)?);
    }
    // A model that takes no pictures is looked at all the same.
    Ok(Gallery::bundled(subject).unwrap_or_else(|_| Gallery::empty(subject.image_shape())))
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
