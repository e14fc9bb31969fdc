//! `lara experiment classification`: the paper's table in small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lara_models::data::Split;
use lara_models::train::checkpoints::latest;
use lara_models::train::{Checkpoint, Control, Event, TrainConfig, Trainer};
use lara_runtime::{Gpu, Tune};
use serde::{Deserialize, Serialize};

use super::files;
use super::plot::{Chart, Series};
use super::statistics::Mean;
use crate::adapter::AdapterOptions;
use crate::bench::step;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::interrupt::Interrupt;

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
    /// A preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "digits")]
    preset: String,
    /// Mechanisms, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = ["softmax", "ra", "lara", "rfa", "performer"].map(String::from))]
    mechanisms: Vec<String>,
    /// Runs of each mechanism: train.seed = 1 .. N.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Passes over the training images instead of the preset's; the warm-up shrinks or grows with it.
    #[arg(long)]
    epochs: Option<u64>,
    /// Set a value of the configuration, for instance attention.num_landmarks=16; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder for the runs and for classification.csv, .json, .svg and .png.
    #[arg(long, value_name = "DIR", default_value = "runs/classification")]
    output_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

/// A complete run, kept in its folder.
#[derive(Clone, Serialize, Deserialize)]
struct Run {
    mechanism: String,
    seed: u64,
    /// Share of the held-out images that is classified right after the last step.
    accuracy: f64,
    loss: f64,
    steps: u64,
    parameters: usize,
    /// Median of a training step, alone, after the first.
    step_milliseconds: f64,
    /// Training and evaluation, without what an earlier part of an interrupted run took.
    seconds: f64,
    adapter: String,
    /// The whole configuration, TOML.
    config: String,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    mechanism: String,
    accuracy: Mean,
    lowest: f64,
    highest: f64,
    parameters: usize,
    /// Median over the runs.
    step_milliseconds: f64,
}

#[derive(Serialize)]
struct Report {
    preset: String,
    rows: Vec<Row>,
    runs: Vec<Run>,
    /// Mechanisms that could not be trained, and why.
    failed: BTreeMap<String, String>,
}

const RESULT: &str = "result.json";

pub(crate) fn run(options: &Options) -> Outcome {
    let configs = configs(options)?;
    for config in &configs {
        check(config)?;
    }
    files::create(&options.output_dir)?;
    let gpu = options.adapter.open()?;
    let tune = Tune::measured(&gpu);
    let stop = Interrupt::listen()?.control;
    let (mut runs, mut failed) = (Vec::new(), BTreeMap::new());
    for (at, config) in configs.iter().enumerate() {
        let mechanism = config.attention.mechanism.name();
        if failed.contains_key(mechanism) {
            continue;
        }
        let title = format!("{}/{} {mechanism} seed {}", at + 1, configs.len(), config.train.seed);
        match complete(&gpu, &tune, config, &title, &stop) {
            Ok(Some(run)) => runs.push(run),
            Ok(None) => {
                let dir = options.output_dir.display();
                print(format!("interrupted during {title}; the same command goes on from {dir}"));
                return Ok(());
            }
            // The others are still worth their time.
            Err(failure) => {
                eprintln!("{title}: {failure}");
                failed.insert(mechanism.to_owned(), failure.to_string());
            }
        }
    }
    if runs.is_empty() {
        let reasons: Vec<String> = failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        return Err(Failure::failed(format!("no run came to its end ({})", reasons.join("; "))));
    }
    let report = Report { preset: options.preset.clone(), rows: rows(&runs), runs, failed };
    save(&report, &options.output_dir)?;
    if options.json {
        print_json(&report)?;
    } else {
        show(&report, options);
    }
    match report.failed.keys().next() {
        None => Ok(()),
        Some(first) => Err(Failure::failed(format!("{first} could not be trained: {}", report.failed[first]))),
    }
}

/// The configuration of every run, all checked before the first begins.
fn configs(options: &Options) -> Outcome<Vec<TrainConfig>> {
    if options.seeds == 0 || options.mechanisms.is_empty() {
        return Err(Failure::input("there is nothing to train; --seeds must be at least 1 and --mechanisms name one"));
    }
    let preset = TrainConfig::load(&options.preset, &[] as &[&str])?;
    let mut configs = Vec::new();
    for mechanism in &options.mechanisms {
        for seed in 1..=options.seeds {
            let mut sets = vec!["output.checkpoint_hist=1".to_owned(), "output.tensorboard=false".to_owned()];
            if let Some(epochs) = options.epochs {
                let share = preset.train.warmup_epochs / preset.train.epochs as f64;
                sets.push(format!("train.epochs={epochs}"));
                sets.push(format!("train.warmup_epochs={:?}", share * epochs as f64));
            }
            sets.extend(options.set.iter().cloned());
            // The short form, which also clears a list of single blocks: it would win over the mechanism.
            sets.push(format!("attention={mechanism}"));
            sets.push(format!("train.seed={seed}"));
            let mut config = TrainConfig::load(&options.preset, &sets)?;
            config.output.dir = options.output_dir.join(format!("{}-seed-{seed}", config.attention.mechanism.name()));
            configs.push(config);
        }
    }
    Ok(configs)
}

/// A run from its beginning, from where it was interrupted, or from its result; `None` if it was interrupted now.
fn complete(gpu: &Gpu, tune: &Tune, config: &TrainConfig, title: &str, stop: &Control) -> Outcome<Option<Run>> {
    let dir = &config.output.dir;
    if let Some(run) = finished(dir)? {
        return Ok(Some(run));
    }
    if stop.is_stopped() {
        return Ok(None);
    }
    let started = latest(dir);
    // Timed first: what is measured for it is there for the run, and the machine is in the same state for all.
    let timed = step::time(gpu, tune, config, STEPS)?;
    let trainer = pollster::block_on(async {
        match &started {
            Some(_) => Trainer::resume(gpu, tune, dir).await,
            None => Trainer::new(gpu, tune, config).await,
        }
    })?;
    let (total, done) = (trainer.total(), trainer.position());
    let bar = ProgressBar::new(total);
    let template = "{msg} {bar:30} {pos}/{len} eta {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(done);
    bar.reset_eta();
    bar.set_message(title.to_owned());
    let on_event = &mut |event: Event<'_>| {
        if let Event::Step(progress) = event {
            bar.set_position(progress.result.step + 1);
        }
    };
    let summary = pollster::block_on(trainer.run(stop, on_event));
    bar.finish_and_clear();
    let summary = summary?;
    if summary.interrupted {
        return Ok(None);
    }
    let evaluation = summary.evaluation.ok_or_else(|| {
        let dir = dir.display();
        Failure::failed(format!(
            "{dir} was trained to its end but its result was lost; delete the folder and run again"
        ))
    })?;
    let run = Run {
        mechanism: config.attention.mechanism.name().to_owned(),
        seed: config.train.seed,
        accuracy: evaluation.accuracy,
        loss: evaluation.loss,
        steps: summary.steps,
        parameters: summary.parameters,
        step_milliseconds: 1e3 * timed.steps.median,
        seconds: summary.seconds,
        adapter: gpu.report().name.clone(),
        config: config.to_toml()?,
    };
    files::write(&dir.join(RESULT), &serde_json::to_string_pretty(&run)?)?;
    eprintln!("{title}: held-out accuracy {:.2} % after {} steps", 100.0 * run.accuracy, run.steps);
    Ok(Some(run))
}

/// Steps that are timed.
const STEPS: u64 = 10;

fn finished(dir: &Path) -> Outcome<Option<Run>> {
    let path = dir.join(RESULT);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::input(format!("{} is no result of this experiment ({error}); delete it", path.display()))
    })
}

/// What would end the experiment after hours is found before it starts: data that is not there, runs of other settings.
fn check(config: &TrainConfig) -> Outcome {
    config.open_data(Split::Test)?;
    let dir = &config.output.dir;
    match (finished(dir)?, latest(dir)) {
        (Some(run), _) => same_settings(&TrainConfig::from_toml(&run.config, RESULT)?, config),
        (None, Some(path)) => same_settings(&Checkpoint::load(&path)?.config()?, config),
        (None, None) => Ok(()),
    }
}

fn same_settings(found: &TrainConfig, wanted: &TrainConfig) -> Outcome {
    // The folder may have been named or moved differently.
    let found = TrainConfig { output: wanted.output.clone(), ..found.clone() };
    if found == *wanted {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{} holds a run with other settings than asked for now; choose another --output-dir, or delete it",
        wanted.output.dir.display()
    )))
}

fn rows(runs: &[Run]) -> Vec<Row> {
    let mut names: Vec<&str> = runs.iter().map(|run| run.mechanism.as_str()).collect();
    names.dedup();
    let row = |name: &str| {
        let of: Vec<&Run> = runs.iter().filter(|run| run.mechanism == name).collect();
        let accuracies: Vec<f64> = of.iter().map(|run| run.accuracy).collect();
        let mut times: Vec<f64> = of.iter().map(|run| run.step_milliseconds).collect();
        times.sort_by(f64::total_cmp);
        Row {
            mechanism: name.to_owned(),
            lowest: accuracies.iter().copied().fold(f64::INFINITY, f64::min),
            highest: accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            accuracy: Mean::of(&accuracies),
            parameters: of[0].parameters,
            step_milliseconds: times[times.len() / 2],
        }
    };
    names.into_iter().map(row).collect()
}

fn save(report: &Report, dir: &Path) -> Outcome {
    let mut csv = "mechanism,seed,accuracy,loss,steps,parameters,step_milliseconds,seconds\n".to_owned();
    for run in &report.runs {
        let Run { mechanism, seed, accuracy, loss, steps, parameters, step_milliseconds, seconds, .. } = run;
        csv += &format!(
            "{mechanism},{seed},{accuracy:.6},{loss:.6},{steps},{parameters},{step_milliseconds:.3},{seconds:.1}\n"
        );
    }
    let stem = dir.join("classification");
    files::write(&stem.with_extension("csv"), &csv)?;
    files::write(&stem.with_extension("json"), &serde_json::to_string_pretty(report)?)?;
    chart(report).write(&stem)
}

fn chart(report: &Report) -> Chart {
    let series = |(at, row): (usize, &Row)| {
        let x = at as f64;
        let runs = report.runs.iter().filter(|run| run.mechanism == row.mechanism);
        let mut points: Vec<(f64, f64, f64)> = runs.map(|run| (x, 100.0 * run.accuracy, 0.0)).collect();
        let deviation = row.accuracy.deviation.unwrap_or(0.0);
        points.push((x, 100.0 * row.accuracy.mean, 100.0 * deviation));
        Series { name: row.mechanism.clone(), points }
    };
    Chart {
        title: format!("Held-out accuracy, {}: runs, their mean and standard deviation", report.preset),
        x: "attention".into(),
        y: "accuracy, %".into(),
        categories: report.rows.iter().map(|row| row.mechanism.clone()).collect(),
        series: report.rows.iter().enumerate().map(series).collect(),
    }
}

fn show(report: &Report, options: &Options) {
    let (steps, seeds) = (report.runs[0].steps, options.seeds);
    print(format!("{}: {steps} steps, {seeds} seeds, {}", report.preset, report.runs[0].adapter));
    print(format!(
        "{:<12}{:>22}{:>20}{:>14}{:>12}",
        "attention", "accuracy", "lowest to highest", "parameters", "step"
    ));
    for Row { mechanism, accuracy, lowest, highest, parameters, step_milliseconds } in &report.rows {
        let spread = accuracy.deviation.map_or_else(String::new, |d| format!(" ± {:.2}", 100.0 * d));
        let mean = format!("{:.2}{spread} %", 100.0 * accuracy.mean);
        let range = format!("{:.2} to {:.2} %", 100.0 * lowest, 100.0 * highest);
        print(format!("{mechanism:<12}{mean:>22}{range:>20}{parameters:>14}{step_milliseconds:>9.1} ms"));
    }
    print(format!("{}: classification.csv, .json, .svg, .png", options.output_dir.display()));
}
