//! `lara models`

use clap::Args;
use lara_models::estimate::{Estimate, estimate};
use lara_models::train::TrainConfig;
use lara_models::zoo;
use lara_runtime::attention::MechanismKind;
use lara_runtime::{Gpu, Tune, human_bytes};
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};

/// List architectures: parameters, tokens, multiply-adds; of one, the memory with each attention mechanism.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara models
  lara models deit_tiny_patch16_224
  lara models evit_tiny_p8 --batch-size 128 --set attention.num_landmarks=49 --json

Names are timm's, and evit_* for the models of the paper. `--set model.name=NAME` trains one; weights of others open with
hf:ORG/NAME. Memory is what a forward pass and a training step of AdamW take on this adapter, before anything is allocated.")]
pub(crate) struct Options {
    /// One of them; all without it.
    name: Option<String>,
    /// Images of one pass.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Set a value of the configuration, for instance model.image_size=384; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Serialize)]
struct Row {
    name: String,
    mechanism: MechanismKind,
    batch_size: usize,
    #[serde(flatten)]
    estimate: Estimate,
}

/// Largest batch, as in training.
const MOST_IMAGES: usize = 1 << 20;

pub(crate) fn run(options: &Options) -> Outcome {
    if !(1..=MOST_IMAGES).contains(&options.batch_size) {
        let what = format!("--batch-size is {}; it must be from 1 to {MOST_IMAGES}", options.batch_size);
        return Err(Failure::input(what));
    }
    let (names, mechanisms) = match &options.name {
        Some(name) => (vec![name.clone()], &MechanismKind::ALL[..]),
        None => (zoo::names(), &[MechanismKind::Softmax][..]),
    };
    // What is refused is refused before the adapter is opened.
    let config = |name: &str, mechanism: MechanismKind| -> Outcome<TrainConfig> {
        let mut config = TrainConfig::default();
        config.set(&format!("model.name={name}"))?;
        config.set(&format!("attention.mechanism={}", mechanism.name()))?;
        options.set.iter().try_for_each(|set| config.set(set))?;
        config.validate()?;
        Ok(config)
    };
    let mut configs = Vec::new();
    for name in &names {
        for &mechanism in mechanisms {
            configs.push((name.clone(), mechanism, config(name, mechanism)?));
        }
    }
    let gpu = options.adapter.open()?;
    // Of all models only sizes are told, which no choice of a kernel changes.
    let tune = if options.name.is_some() { Tune::measured(&gpu) } else { Tune::fixed(&[]) };
    let rows =
        configs.into_iter().map(|(name, mechanism, config)| row(&gpu, &tune, options, (name, mechanism, &config)));
    let rows = rows.collect::<Outcome<Vec<Row>>>()?;
    if options.json {
        return print_json(&rows);
    }
    if options.name.is_some() {
        show_one(&rows)
    } else {
        show_all(&rows)
    }
    Ok(())
}

fn row(gpu: &Gpu, tune: &Tune, options: &Options, of: (String, MechanismKind, &TrainConfig)) -> Outcome<Row> {
    let (name, mechanism, config) = of;
    // A list needs no more than one image.
    let batch_size = if options.name.is_some() { options.batch_size } else { 1 };
    let estimate = estimate(gpu, tune, config, batch_size)?;
    Ok(Row { name, mechanism, batch_size, estimate })
}

fn show_all(rows: &[Row]) {
    print(format!("{:<40} {:>12} {:>7} {:>8}", "", "parameters", "tokens", "GMAC"));
    for Row { name, estimate, .. } in rows {
        let Estimate { parameters, tokens, macs, .. } = estimate;
        print(format!("{name:<40} {parameters:>12} {tokens:>7} {:>8.2}", macs / 1e9));
    }
}

fn show_one(rows: &[Row]) {
    let Some(Row { name, batch_size, estimate, .. }) = rows.first() else { return };
    print(format!("{name}: {} tokens; memory at a batch size of {batch_size}", estimate.tokens));
    print(format!("{:<10} {:>12} {:>8} {:>12} {:>12}", "", "parameters", "GMAC", "inference", "training"));
    for Row { mechanism, estimate, .. } in rows {
        let Estimate { parameters, macs, inference, training, .. } = estimate;
        let training = training.map_or_else(|| "-".to_owned(), |memory| human_bytes(memory.peak()));
        print(format!(
            "{:<10} {parameters:>12} {:>8.3} {:>12} {training:>12}",
            mechanism.name(),
            macs / 1e9,
            human_bytes(inference.peak())
        ));
    }
}
