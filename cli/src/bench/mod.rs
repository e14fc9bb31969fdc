//! `lara bench`

mod attention;
mod measure;
mod primitives;
pub(crate) mod step;

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use lara_runtime::{AdapterReport, Gpu, Tune, human_bytes};
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Outcome, print, print_json};

/// Measure this adapter: FMA peak, copy bandwidth, matmul, attention forward and backward, a training step.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara bench
  lara bench attention --max-tokens 3136
  lara bench attention --mechanism all
  lara bench matmul step --json")]
pub(crate) struct Options {
    /// What to measure; everything if nothing is named. The peaks are always measured.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Longest sequence for attention.
    #[arg(long, default_value_t = 12_544, value_name = "N")]
    max_tokens: usize,
    /// Mechanisms for attention, separated by commas. Measured together with softmax, each gets the N from which on it is
    /// faster.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "softmax,lara")]
    mechanism: Vec<attention::Mechanism>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Matmul,
    Attention,
    Step,
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    name: String,
    /// Median of the runs.
    milliseconds: f64,
    /// Fastest run.
    fastest_milliseconds: f64,
    runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    /// GFLOP/s of the median run over the FMA peak of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_peak: Option<f64>,
    /// Pooled activations, saved values and gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    activation_bytes: Option<u64>,
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

/// What every part of the benchmark works with.
struct Bench<'a> {
    gpu: &'a Gpu,
    tune: Tune,
    bar: ProgressBar,
    peak: f64,
    rows: Vec<Row>,
    crossovers: Vec<attention::Crossover>,
    left_out: Vec<String>,
}

impl Bench<'_> {
    fn push(&mut self, name: String, times: &measure::Times, flops: Option<f64>, activation_bytes: Option<u64>) {
        let gflops = flops.map(|f| f / times.median / 1e9);
        self.rows.push(Row {
            name,
            milliseconds: times.median * 1e3,
            fastest_milliseconds: times.fastest * 1e3,
            runs: times.runs,
            gflops,
            of_peak: gflops.map(|g| g / self.peak),
            activation_bytes,
        });
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let gpu = options.adapter.open()?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let wants = |what| options.what.is_empty() || options.what.contains(&what);
    let tune = Tune::measured(&gpu);
    let mut bench = Bench { gpu: &gpu, tune, bar, peak: 0.0, rows: vec![], crossovers: vec![], left_out: vec![] };
    bench.bar.set_message("FMA peak");
    bench.peak = primitives::fma_peak(&gpu)?;
    bench.bar.set_message("copy bandwidth");
    let copy = primitives::copy_bandwidth(&gpu)?;
    if wants(What::Matmul) {
        primitives::matmuls(&mut bench)?;
    }
    if wants(What::Attention) {
        attention::run(&mut bench, options.max_tokens, &options.mechanism)?;
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
        crossovers: bench.crossovers,
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
