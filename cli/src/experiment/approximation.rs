//! `lara experiment approximation`: the paper's section 5.1.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lara_models::train::TrainConfig;
use lara_runtime::attention::{AttentionConfig, MechanismKind, ProposalGen};
use lara_runtime::{AdapterReport, Tune};
use serde::Serialize;

use super::files;
use super::measure::{ALL, Estimator, Experiment, Point, Skipped, UNIFORM, exact_outputs};
use super::plot::{Chart, Series};
use super::source::{Inputs, Source};
use super::statistics::Mean;
use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};

/// Error of RFA, RA and LARA against exact softmax attention over the number of samples.
///
/// RFA draws S features, RA S keys and noise for each query, LARA has S proposals: their means at evaluation, one exact
/// draw from each while training ("learned": with the landmarks that a trained LARA model has). "uniform" is the mean of the values: what attention is without looking at all.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara experiment approximation --output-dir runs/approximation
  lara experiment approximation --amplitude 1.0 --tokens 784 --samples 1,4,16
  lara experiment approximation --source checkpoint runs/digits --count 32
  lara experiment approximation --source checkpoint runs/digits --images seven.png --set mis_type=mis-bh --json")]
pub(crate) struct Options {
    #[command(flatten)]
    inputs: Inputs,
    /// Numbers of samples, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64, 256])]
    samples: Vec<usize>,
    /// Which estimators, separated by commas; all that there can be if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    estimators: Vec<Estimator>,
    /// Set a value of the attention, for instance mis_type=mis-bh; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder for approximation.csv, .json, .svg and .png.
    #[arg(long, value_name = "DIR", default_value = "runs/approximation")]
    output_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Serialize)]
struct Report {
    source: String,
    adapter: AdapterReport,
    seeds: u64,
    /// batch, heads, tokens, head dim.
    shape: Vec<usize>,
    attention: AttentionConfig,
    points: Vec<Point>,
    skipped: Vec<Skipped>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    check(options)?;
    files::create(&options.output_dir)?;
    let gpu = options.adapter.open()?;
    let tune = Tune::measured(&gpu);
    let source = Source::open(&gpu, &tune, &options.inputs)?;
    let base = base_settings(&source, options)?;
    let exact = exact_outputs(&gpu, &tune, &source)?;
    let mut experiment =
        Experiment { gpu: &gpu, tune: &tune, source: &source, exact: &exact, points: vec![], skipped: vec![] };
    let estimators = estimators(options, &source);
    let bar = ProgressBar::new((estimators.len() * options.samples.len()) as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} eta {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    for estimator in estimators {
        for &samples in &options.samples {
            bar.set_message(format!("{} S = {samples}", estimator.name()));
            experiment.measure(estimator, samples, &base)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    experiment.uniform();
    let Experiment { points, skipped, .. } = experiment;
    if points.iter().all(|point| point.estimator == UNIFORM) {
        let reason = skipped.first().map_or("no number of samples was given", |skipped| &skipped.reason);
        return Err(Failure::input(format!("nothing could be measured: {reason}")));
    }
    let shape = source.groups[0].draws[0]["q"].shape.clone();
    let adapter = gpu.report().clone();
    let report =
        Report { source: source.name, adapter, seeds: options.inputs.seeds, shape, attention: base, points, skipped };
    save(&report, options)?;
    if options.json { print_json(&report) } else { show(&report, options) }
}

/// Those that were named; otherwise all that the source allows.
fn estimators(options: &Options, source: &Source) -> Vec<Estimator> {
    if !options.estimators.is_empty() {
        return options.estimators.clone();
    }
    let has_landmarks = source.groups.iter().all(|group| !group.weights.is_empty());
    let all = Estimator::value_variants().iter().copied();
    all.filter(|estimator| *estimator != Estimator::LaraLearned || has_landmarks).collect()
}

fn check(options: &Options) -> Outcome {
    if options.samples.contains(&0) {
        return Err(Failure::input("--samples has a 0; at least one sample is needed"));
    }
    options.inputs.check()
}

/// The source's settings without learned landmarks: every number of samples must do without weights of its own.
fn base_settings(source: &Source, options: &Options) -> Outcome<AttentionConfig> {
    let mechanism = MechanismKind::Lara;
    let start = AttentionConfig {
        mechanism,
        proposal_gen: ProposalGen::NoParamPool,
        causal: false,
        ..source.attention.clone()
    };
    let base = TrainConfig::attention_from(&start, &options.set)?;
    match base.proposal_gen {
        ProposalGen::NoParamPool | ProposalGen::NoParamPoolMixed => Ok(AttentionConfig { mechanism, ..base }),
        _ => Err(Failure::input(
            "proposal_gen has learned weights, which an experiment over the number of samples does not; choose \
             no-param-pool or no-param-pool-mixed",
        )),
    }
}

fn save(report: &Report, options: &Options) -> Outcome {
    let mut csv =
        "source,group,estimator,samples,seeds,mse,mse_standard_error,relative,relative_standard_error\n".to_owned();
    for Point { group, estimator, samples, mse, relative } in &report.points {
        let [mse_error, relative_error] = [mse, relative].map(|mean| Mean::cell(mean.standard_error));
        csv += &format!(
            "\"{}\",{group},{estimator},{samples},{},{:e},{mse_error},{:e},{relative_error}\n",
            report.source.replace('"', "\"\""),
            report.seeds,
            mse.mean,
            relative.mean
        );
    }
    let stem = options.output_dir.join("approximation");
    files::write(&stem.with_extension("csv"), &csv)?;
    files::write(&stem.with_extension("json"), &serde_json::to_string_pretty(report)?)?;
    chart(report, &options.samples).write(&stem)
}

/// The points to show: the only group, or the mean over them.
fn shown(report: &Report) -> Vec<&Point> {
    let has_all = report.points.iter().any(|point| point.group == ALL);
    report.points.iter().filter(|point| !has_all || point.group == ALL).collect()
}

fn chart(report: &Report, samples: &[usize]) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for point in shown(report) {
        let (y, error) = (point.mse.mean, point.mse.standard_error.unwrap_or(0.0));
        if y <= 0.0 {
            // No place for exactness on a logarithmic axis.
            continue;
        }
        if series.last().is_none_or(|last| last.name != point.estimator) {
            series.push(Series { name: point.estimator.to_owned(), points: vec![] });
        }
        let xs = if point.samples == 0 { samples } else { &[point.samples] };
        let points = xs.iter().map(|&x| (x as f64, y, error));
        series.last_mut().into_iter().for_each(|last| last.points.extend(points.clone()));
    }
    Chart {
        title: format!("Error against softmax attention: {}", report.source),
        x: "samples S (features, drawn keys, proposals)".into(),
        y: "mean squared error".into(),
        categories: vec![],
        level: None,
        series,
    }
}

fn show(report: &Report, options: &Options) -> Outcome {
    print(format!("{}; q, k, v {:?}, {} seeds", report.source, report.shape, report.seeds));
    let points = shown(report);
    for title in ["mean squared error", "relative error"] {
        let measure = |point: &Point| if title == "relative error" { cell(&point.relative) } else { cell(&point.mse) };
        print(format!("\n{title:<20}{}", columns(options.samples.iter().map(|s| format!("S = {s}")))));
        let mut names: Vec<&str> = points.iter().map(|point| point.estimator).collect();
        names.dedup();
        for name in names {
            let of = |samples: usize| {
                let found = points.iter().find(|p| p.estimator == name && (p.samples == samples || p.samples == 0));
                found.map_or_else(String::new, |point| measure(point))
            };
            print(format!("{name:<20}{}", columns(options.samples.iter().map(|s| of(*s)))));
        }
    }
    print("");
    for Skipped { estimator, samples, reason } in &report.skipped {
        let samples: Vec<String> = samples.iter().map(usize::to_string).collect();
        print(format!("{estimator} was left out for S = {}: {reason}", samples.join(", ")));
    }
    print(format!("{}: approximation.csv, .json, .svg, .png", options.output_dir.display()));
    Ok(())
}

fn columns(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| format!("{cell:>20}")).collect()
}

fn cell(mean: &Mean) -> String {
    match mean.standard_error {
        Some(error) => format!("{:.2e} ± {error:.0e}", mean.mean),
        None => format!("{:.2e}", mean.mean),
    }
}
