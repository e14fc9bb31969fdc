//! `lara predict`

use std::path::PathBuf;

use clap::Args;
use lara_models::{Error, softmax, top};
use lara_runtime::Tune;
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::model;

/// Classify images.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara predict runs/digits seven.png
  lara predict runs/digits *.png --json

What the model looks at: lara export-maps runs/digits seven.png --overview --out maps/")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: PathBuf,
    /// Pictures: PNG, JPEG, WebP, GIF or BMP files.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Configuration for a file that carries none: a preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance attention.mechanism=softmax; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Gone: export-maps does it in linear time.
    #[arg(long, value_name = "DIR", hide = true)]
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
}

#[derive(Serialize)]
struct Class {
    class: String,
    probability: f64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    if let Some(dir) = &options.maps {
        return Err(Failure::input(format!(
            "predict writes no maps any more; `lara export-maps {} .. --overview --out {}` does, of any layer, head and \
             query",
            options.checkpoint.display(),
            dir.display()
        )));
    }
    let gpu = options.adapter.open()?;
    let model = model::open(&options.checkpoint, options.preset.as_deref(), &options.set)?;
    if model.config.model.num_classes() == 0 {
        return Err(Failure::input(format!(
            "{} has no classifier, so it names no classes: `lara run` writes its features, `lara export-maps` shows what it looks at",
            options.checkpoint.display()
        )));
    }
    let predictor = pollster::block_on(model.predictor(&gpu, &Tune::measured(&gpu), 1));
    let predictor = predictor.map_err(Error::lowering(model::LOWER_NOTHING))?;
    let reader = model.config.preprocess()?;
    // Every image is read before the first is classified: a bad one is told at once.
    let images: Vec<Vec<f32>> = options.images.iter().map(|path| reader.read(path)).collect::<Result<_, _>>()?;
    let mut predictions = Vec::new();
    for (path, pixels) in options.images.iter().zip(&images) {
        let logits = pollster::block_on(predictor.finite_logits(&reader.normalise(pixels)?))?;
        let class = |(index, probability): (usize, f64)| Class {
            class: model.classes.get(index).cloned().unwrap_or_else(|| index.to_string()),
            probability,
        };
        let top5 = top(&softmax(&logits[0]), 5).into_iter().map(class).collect();
        predictions.push(Prediction { image: path.clone(), top5 });
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
}
