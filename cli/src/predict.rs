//! `lara predict`

use std::path::PathBuf;

use clap::Args;
use lara_models::{softmax, top};
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Outcome, print, print_json};
use crate::{maps, model};

/// Classify images.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara predict runs/digits seven.png
  lara predict runs/digits *.png --json
  lara predict runs/digits seven.png --maps maps/")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: PathBuf,
    /// PNG or JPEG files.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Configuration for a file that carries none: `digits`, `mnist` or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance attention.mechanism=softmax; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Also write the attention of every block over each image as PNG files into this folder.
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Serialize)]
struct Prediction {
    image: PathBuf,
    top5: Vec<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maps: Option<PathBuf>,
}

#[derive(Serialize)]
struct Class {
    class: String,
    probability: f64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let gpu = options.adapter.open()?;
    let model =
        model::load(&gpu, &options.checkpoint, options.preset.as_deref(), &options.set, 1, options.maps.is_some())?;
    let reader = model::Reader::new(&model.config)?;
    // Every image is read before the first is classified: a bad one is told at once.
    let images: Vec<Vec<f32>> = options.images.iter().map(|path| reader.read(path)).collect::<Outcome<_>>()?;
    let mut predictions = Vec::new();
    for (path, pixels) in options.images.iter().zip(&images) {
        let logits = pollster::block_on(model.predictor.logits(&reader.normalise(pixels)))?;
        let class = |(index, probability): (usize, f64)| Class {
            class: model.classes.get(index).cloned().unwrap_or_else(|| index.to_string()),
            probability,
        };
        let top5 = top(&softmax(&logits[0]), 5).into_iter().map(class).collect();
        let maps = options
            .maps
            .as_deref()
            .map(|dir| {
                let seen = pollster::block_on(model.predictor.maps())?;
                maps::write(dir, path, pixels, reader.shape, &seen, model.config.model.layer(0).prefix)
            })
            .transpose()?;
        predictions.push(Prediction { image: path.clone(), top5, maps });
    }
    if options.json {
        return print_json(&predictions);
    }
    predictions.iter().for_each(show);
    Ok(())
}

fn show(prediction: &Prediction) {
    print(prediction.image.display());
    for Class { class, probability } in &prediction.top5 {
        let bar = "#".repeat((probability * 30.0).round() as usize);
        print(format!("  {class:<16} {:6.2} %  {bar}", 100.0 * probability));
    }
    if let Some(maps) = &prediction.maps {
        print(format!("  attention: {}", maps.display()));
    }
}
