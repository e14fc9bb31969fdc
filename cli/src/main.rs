//! The `lara` command.

mod adapter;
mod attend;
mod bench;
mod convert;
mod data;
mod devices;
mod eval;
mod experiment;
mod export_maps;
mod fail;
mod files;
mod interrupt;
mod model;
mod models;
mod predict;
mod run;
mod train;
#[cfg(feature = "view")]
mod view;
#[cfg(not(feature = "view"))]
mod windowless;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use fail::Outcome;
#[cfg(not(feature = "view"))]
use windowless as view;

/// Randomized attention on any GPU: train, evaluate, predict and measure Vision Transformers with softmax or linear
/// randomized attention (LARA), on Vulkan, Metal, DX12 or OpenGL.
#[derive(Parser)]
#[command(name = "lara", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more: -v for what is being done, -vv for every choice of a kernel. RUST_LOG overrides it.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  lara devices
  lara train --preset digits --attention lara
  lara eval runs/digits
  lara predict runs/digits photo.png
  lara view runs/digits
  lara export-maps runs/digits photo.png --overview --format html --out maps/
  lara attend --input in.safetensors --output out.safetensors --mechanism softmax
  lara run hf:facebook/dino-vits8 --input in.safetensors --output out.safetensors
  lara experiment approximation --source checkpoint runs/digits
  lara bench --json

Exit codes: 0 done, 1 failed, 2 bad use or bad input.";

#[derive(Subcommand)]
enum Command {
    /// Train a model; interrupted runs go on with --resume.
    Train(train::Options),
    /// Evaluate a trained model on the held-out images.
    Eval(eval::Options),
    /// Classify images: the five most probable classes.
    Predict(predict::Options),
    /// Write attention maps of images as pictures, arrays or a page.
    ExportMaps(export_maps::Options),
    /// Look at attention in a window: any mechanism, live.
    View(view::Options),
    /// List the adapters, their drivers, limits and features.
    Devices(devices::Options),
    /// Apply an attention mechanism to tensors of a file.
    Attend(attend::Options),
    /// List architectures: parameters, tokens, multiply-adds; of one, the memory with each attention mechanism.
    Models(models::Options),
    /// Run a model on tensors of a file, and compare what comes out.
    Run(run::Options),
    /// Write a model as another library has it.
    Convert(convert::Options),
    /// The paper's comparisons: approximation error, and classification at equal budget.
    Experiment(experiment::Options),
    /// Measure this adapter: peaks, matmul, attention, a training step.
    Bench(bench::Options),
    /// Fetch or export data sets.
    Data(data::Options),
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Train(options) => train::run(options),
        Command::Eval(options) => eval::run(options),
        Command::Predict(options) => predict::run(options),
        Command::ExportMaps(options) => export_maps::run(options),
        Command::View(options) => view::run(options),
        Command::Devices(options) => devices::run(options),
        Command::Attend(options) => attend::run(options),
        Command::Models(options) => models::run(options),
        Command::Run(options) => run::run(options),
        Command::Convert(options) => convert::run(options),
        Command::Experiment(options) => experiment::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Data(options) => data::run(options),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::outlive_file_limit();
    let default = ["lara=info,lara_models=warn,lara_runtime=warn", "lara=debug,lara_models=info,lara_runtime=info"];
    let level =
        default.get(usize::from(cli.verbose)).copied().unwrap_or("debug,wgpu_core=warn,wgpu_hal=warn,naga=warn");
    // Targets and levels alone: filtering by fields of spans, of which there are none, would bring an engine for regular
    // expressions.
    let targets = |text: &str| text.parse::<Targets>().ok();
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| targets(&text)).or_else(|| targets(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time();
    tracing_subscriber::registry().with(lines.with_filter(filter.unwrap_or_default())).init();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lara: {failure}");
            failure.code()
        }
    }
}
