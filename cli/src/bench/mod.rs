//! `lara bench`

mod attention;
mod loader;
mod loader_stages;
mod measure;
mod primitives;
mod rows;
pub(crate) mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use lara_runtime::{AdapterReport, Tune, human_bytes};
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use rows::{Bench, Row};

/// Measure this adapter: FMA peak, copy bandwidth, matmul, convolution, attention forward and backward, a training step.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara bench
  lara bench attention --max-tokens 3136
  lara bench attention --mechanism all
  lara bench matmul step --json
  lara bench loader --threads 2
  lara bench loader --data photos")]
pub(crate) struct Options {
    /// What to measure; everything that needs the adapter if nothing is named. Its peaks are always measured then.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Longest sequence for attention.
    #[arg(long, default_value_t = 12_544, value_name = "N")]
    max_tokens: usize,
    /// Mechanisms for attention, separated by commas. Measured together with softmax, each gets the N from which on it is
    /// faster.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "softmax,lara")]
    mechanism: Vec<attention::Mechanism>,
    /// Images that the loader loads.
    #[arg(long, default_value_t = 1024, value_name = "N")]
    images: usize,
    /// Threads of the loader.
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,
    /// The loader's pictures, a folder train/CLASS/*; made-up photos of 500x375 without it.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Matmul,
    Convolution,
    Attention,
    Step,
    Loader,
}

#[derive(Serialize)]
struct Report {
    adapter: AdapterReport,
    lara: &'static str,
    wgpu: &'static str,
    fma_peak_gflops: f64,
    copy_gigabytes_per_second: f64,
    rows: Vec<Row>,
    crossovers: Vec<attention::Crossover>,
    left_out: Vec<String>,
    variants: BTreeMap<String, String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    if options.what.contains(&What::Loader) {
        if options.what.len() > 1 {
            return Err(Failure::input("the loader is measured by itself, without an adapter: name nothing beside it"));
        }
        return loader::run(options.images, options.threads, options.data.as_deref(), options.json);
    }
    if let Some(data) = &options.data {
        return Err(Failure::input(format!(
            "--data {} is read by `lara bench loader` alone; nothing else here looks at pictures",
            data.display()
        )));
    }
    let gpu = options.adapter.open()?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let wants = |what| options.what.is_empty() || options.what.contains(&what);
    let tune = Tune::measured(&gpu);
    let mut bench = Bench { gpu: &gpu, tune, bar, peak: 0.0, rows: vec![], left_out: vec![] };
    bench.bar.set_message("FMA peak");
    bench.peak = primitives::fma_peak(&gpu)?;
    bench.bar.set_message("copy bandwidth");
    let copy = primitives::copy_bandwidth(&gpu)?;
    let mut crossovers = Vec::new();
    if wants(What::Matmul) {
        primitives::matmuls(&mut bench)?;
    }
    if wants(What::Convolution) {
        primitives::convolutions(&mut bench)?;
    }
    if wants(What::Attention) {
        crossovers = attention::run(&mut bench, options.max_tokens, &options.mechanism)?;
    }
    if wants(What::Step) {
        step::run(&mut bench)?;
    }
    // The machine may have been busy at the start; the better of two readings is the peak.
    let peak = bench.peak.max(primitives::fma_peak(&gpu)?);
    bench.rows.iter_mut().for_each(|row| row.of_peak = row.gflops.map(|g| g / peak));
    bench.bar.finish_and_clear();
    let report = Report {
        adapter: gpu.report().clone(),
        lara: env!("CARGO_PKG_VERSION"),
        wgpu: "30.0",
        fma_peak_gflops: peak,
        copy_gigabytes_per_second: copy,
        rows: bench.rows,
        crossovers,
        left_out: bench.left_out,
        variants: bench.tune.choices(),
    };
    if options.json {
        return print_json(&report);
    }
    show(&report);
    Ok(())
}

fn show(report: &Report) {
    let AdapterReport { name, backend, driver, .. } = &report.adapter;
    print(format!("{name} ({backend}), {driver}; lara {}, wgpu {}", report.lara, report.wgpu));
    print(format!(
        "FMA peak {:.1} GFLOP/s, copy {:.2} GB/s\n",
        report.fma_peak_gflops, report.copy_gigabytes_per_second
    ));
    print(format!("{:<44} {:>10} {:>10} {:>9} {:>8}  memory", "", "median ms", "fastest", "GFLOP/s", "of peak"));
    for row in &report.rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.2}"));
        print(format!(
            "{:<44} {:>10.2} {:>10.2} {:>9} {:>8}  {}",
            row.name,
            row.milliseconds,
            row.fastest_milliseconds,
            number(row.gflops),
            number(row.of_peak),
            row.activation_bytes.map_or_else(String::new, human_bytes)
        ));
    }
    if !(report.crossovers.is_empty() && report.left_out.is_empty()) {
        print("");
    }
    report.crossovers.iter().for_each(|crossover| print(&crossover.finding));
    report.left_out.iter().for_each(print);
}
