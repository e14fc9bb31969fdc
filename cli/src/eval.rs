//! `lara eval`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use lara_models::Error;
use lara_models::data::{Augment, Split};
use lara_models::train::evaluate;
use lara_runtime::Tune;

use crate::adapter::AdapterOptions;
use crate::fail::{Outcome, print, print_json};
use crate::model;

/// Evaluate a trained model on the held-out images of its data set.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara eval runs/digits
  lara eval runs/digits/best --json
  lara eval model.safetensors --preset mnist --set data.path=data/mnist")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: PathBuf,
    /// Configuration for a file that carries none: a preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance data.path=...; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Images of one forward pass.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Print JSON, with the confusion matrix.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let gpu = options.adapter.open()?;
    let batch = options.batch_size.max(1);
    let model = model::open(&options.checkpoint, options.preset.as_deref(), &options.set)?;
    let predictor = pollster::block_on(model.predictor(&gpu, &Tune::measured(&gpu), batch));
    let predictor = predictor.map_err(Error::lowering("--batch-size"))?;
    let dataset = model.config.open_data(Split::Test)?;
    let bar = ProgressBar::new(dataset.len() as u64);
    let start = Instant::now();
    let augment = Augment::eval(&model.config.data);
    let workers = model.config.data.workers;
    let progress = |done: usize| bar.set_position(done as u64);
    let evaluation = pollster::block_on(evaluate(&predictor, &dataset, &augment, workers, progress))?;
    bar.finish_and_clear();
    if options.json {
        return print_json(&evaluation);
    }
    print(format!(
        "{} images of {}: accuracy {:.2} %, top-5 {:.2} %, loss {:.4} ({:.1} s, {} parameters)",
        evaluation.images,
        dataset.name(),
        100.0 * evaluation.accuracy,
        100.0 * evaluation.top5,
        evaluation.loss,
        start.elapsed().as_secs_f64(),
        predictor.parameters().count()
    ));
    Ok(())
}
