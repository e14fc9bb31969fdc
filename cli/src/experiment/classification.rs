//! `lara experiment classification`: the paper's table in small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use lara_models::train::TrainConfig;
use serde::Serialize;

use super::files;
use super::plot::{Chart, Series};
use super::runs::{self, Budget, Done, Planned, Run, Summary};
use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};

/// Train the same Vision Transformer with every mechanism, from the same seeds, on the same batches, for as many steps.
///
/// Accuracy is that of the last step on the held-out images, not the best of several. A run that is complete in the
/// output folder is not repeated, an interrupted one goes on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara experiment classification --preset digits --seeds 3
  lara experiment classification --preset mnist --mechanisms softmax,lara --seeds 3 --epochs 1
  lara experiment classification --preset digits --set features=32 --set attention.alpha_coeff=1.0 --json")]
pub(crate) struct Options {
    #[command(flatten)]
    budget: Budget,
    /// Mechanisms, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = ["softmax", "ra", "lara", "rfa", "performer"].map(String::from))]
    mechanisms: Vec<String>,
    /// Folder for the runs and for classification.csv, .json, .svg and .png.
    #[arg(long, value_name = "DIR", default_value = "runs/classification")]
    output_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    mechanism: String,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Serialize)]
struct Report {
    preset: String,
    rows: Vec<Row>,
    runs: Vec<Run>,
    /// Mechanisms that could not be trained, and why.
    failed: BTreeMap<String, String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let Some(done) = runs::train(&options.adapter, &options.output_dir, &planned(options)?)? else { return Ok(()) };
    let rows = rows(&done);
    let Done { runs, failed } = done;
    let runs = runs.into_iter().map(|(_, run)| run).collect();
    let report = Report { preset: options.budget.preset.clone(), rows, runs, failed };
    save(&report, &options.output_dir)?;
    if options.json {
        print_json(&report)?;
    } else {
        show(&report, options);
    }
    Done::verdict(&report.failed)
}

/// Every run, all checked before the first begins.
fn planned(options: &Options) -> Outcome<Vec<Planned>> {
    if options.budget.seeds == 0 || options.mechanisms.is_empty() {
        return Err(Failure::input("there is nothing to train; --seeds must be at least 1 and --mechanisms name one"));
    }
    let mut planned = Vec::new();
    for mechanism in &options.mechanisms {
        // The short form, which also clears a list of single blocks: it would win over the mechanism.
        let set = format!("attention={mechanism}");
        let name = |config: &TrainConfig| config.attention.mechanism.name().to_owned();
        planned.extend(options.budget.plan(&options.output_dir, &[set], name)?);
    }
    Ok(planned)
}

fn rows(done: &Done) -> Vec<Row> {
    let mut names: Vec<&str> = done.runs.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let row = |name: &str| Row { mechanism: name.to_owned(), summary: Summary::of(&done.of(name)) };
    names.into_iter().map(row).collect()
}

fn save(report: &Report, dir: &Path) -> Outcome {
    let mut csv = format!("mechanism,{}\n", Run::CSV);
    for run in &report.runs {
        csv += &format!("{},{}\n", run.mechanism, run.csv());
    }
    let stem = dir.join("classification");
    files::write(&stem.with_extension("csv"), &csv)?;
    files::write(&stem.with_extension("json"), &serde_json::to_string_pretty(report)?)?;
    chart(report).write(&stem)
}

fn chart(report: &Report) -> Chart {
    let series = |(at, row): (usize, &Row)| {
        let runs: Vec<&Run> = report.runs.iter().filter(|run| run.mechanism == row.mechanism).collect();
        Series { name: row.mechanism.clone(), points: row.summary.points(at as f64, &runs) }
    };
    Chart {
        title: format!("Held-out accuracy, {}: runs, their mean and standard deviation", report.preset),
        x: "attention".into(),
        y: "accuracy, %".into(),
        categories: report.rows.iter().map(|row| row.mechanism.clone()).collect(),
        level: None,
        series: report.rows.iter().enumerate().map(series).collect(),
    }
}

fn show(report: &Report, options: &Options) {
    let (steps, seeds) = (report.runs[0].steps, options.budget.seeds);
    print(format!("{}: {steps} steps, {seeds} seeds, {}", report.preset, report.runs[0].adapter));
    print(format!("{:<12}{}", "attention", Summary::head()));
    for Row { mechanism, summary } in &report.rows {
        print(format!("{mechanism:<12}{}", summary.cells()));
    }
    print(format!("{}: classification.csv, .json, .svg, .png", options.output_dir.display()));
}
