//! Runs of an experiment: trained one after the other, gone on with where they were interrupted, taken from their folders
//! where they are complete.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lara_models::data::Split;
use lara_models::train::checkpoints::latest;
use lara_models::train::{Checkpoint, Control, Event, TrainConfig, Trainer};
use lara_runtime::{Gpu, Tune};
use serde::{Deserialize, Serialize};

use super::files;
use super::statistics::Mean;
use crate::adapter::AdapterOptions;
use crate::bench::step;
use crate::fail::{Failure, Outcome, print};
use crate::interrupt::Interrupt;

/// What every run has in common.
#[derive(Args)]
pub(super) struct Budget {
    /// A preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "digits")]
    pub(super) preset: String,
    /// Runs of each kind: train.seed = 1 .. N.
    #[arg(long, default_value_t = 3)]
    pub(super) seeds: u64,
    /// Passes over the training images instead of the preset's; the warm-up shrinks or grows with it.
    #[arg(long)]
    epochs: Option<u64>,
    /// Set a value of the configuration, for instance attention.num_landmarks=16; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Budget {
    /// The configuration with `more` over what was asked for.
    pub(super) fn config(&self, more: &[String]) -> Outcome<TrainConfig> {
        let mut sets = vec!["output.checkpoint_hist=1".to_owned(), "output.tensorboard=false".to_owned()];
        if let Some(epochs) = self.epochs {
            let preset = TrainConfig::load(&self.preset, &[] as &[&str])?;
            let share = preset.train.warmup_epochs / preset.train.epochs as f64;
            sets.push(format!("train.epochs={epochs}"));
            sets.push(format!("train.warmup_epochs={:?}", share * epochs as f64));
        }
        Ok(TrainConfig::load(&self.preset, &[&sets[..], &self.set[..], more].concat())?)
    }

    /// One run a seed, each in a folder of its own below `folder`; `name` is what they are called together.
    pub(super) fn plan(
        &self,
        folder: &Path,
        more: &[String],
        name: impl Fn(&TrainConfig) -> String,
    ) -> Outcome<Vec<Planned>> {
        let planned = |seed: u64| -> Outcome<Planned> {
            let mut config = self.config(&[more, &[format!("train.seed={seed}")]].concat())?;
            let name = name(&config);
            config.output.dir = folder.join(format!("{name}-seed-{seed}"));
            Ok(Planned { name, config })
        };
        (1..=self.seeds).map(planned).collect()
    }
}

/// A run to come.
pub(super) struct Planned {
    /// What it is called, together with those of other seeds.
    pub(super) name: String,
    pub(super) config: TrainConfig,
}

/// A complete run, kept in its folder.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) mechanism: String,
    pub(super) seed: u64,
    /// Share of the held-out images that is classified right after the last step.
    pub(super) accuracy: f64,
    pub(super) loss: f64,
    pub(super) steps: u64,
    pub(super) parameters: usize,
    /// Median of a training step, alone, after the first.
    pub(super) step_milliseconds: f64,
    /// Training and evaluation, without what an earlier part of an interrupted run took.
    pub(super) seconds: f64,
    pub(super) adapter: String,
    /// The whole configuration, TOML.
    config: String,
}

impl Run {
    /// The columns of [`Run::csv`].
    pub(super) const CSV: &str = "seed,accuracy,loss,steps,parameters,step_milliseconds,seconds";

    /// Its line of a CSV file, behind what tells it from the others.
    pub(super) fn csv(&self) -> String {
        let Run { seed, accuracy, loss, steps, parameters, step_milliseconds, seconds, .. } = self;
        format!("{seed},{accuracy:.6},{loss:.6},{steps},{parameters},{step_milliseconds:.3},{seconds:.1}")
    }
}

/// What runs that differ in the seed alone have in common.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) accuracy: Mean,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    pub(super) parameters: usize,
    /// Median over the runs.
    pub(super) step_milliseconds: f64,
}

impl Summary {
    /// Of at least one run.
    pub(super) fn of(runs: &[&Run]) -> Summary {
        let accuracies: Vec<f64> = runs.iter().map(|run| run.accuracy).collect();
        let mut times: Vec<f64> = runs.iter().map(|run| run.step_milliseconds).collect();
        times.sort_by(f64::total_cmp);
        Summary {
            lowest: accuracies.iter().copied().fold(f64::INFINITY, f64::min),
            highest: accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            accuracy: Mean::of(&accuracies),
            parameters: runs.first().map_or(0, |run| run.parameters),
            step_milliseconds: times.get(times.len() / 2).copied().unwrap_or(f64::NAN),
        }
    }

    /// The columns of [`Summary::cells`].
    pub(super) fn head() -> String {
        format!("{:>22}{:>20}{:>14}{:>12}", "accuracy", "lowest to highest", "parameters", "step")
    }

    /// Its line of a table, behind what tells it from the others.
    pub(super) fn cells(&self) -> String {
        let Summary { accuracy, lowest, highest, parameters, step_milliseconds } = self;
        let spread = accuracy.deviation.map_or_else(String::new, |d| format!(" ± {:.2}", 100.0 * d));
        let mean = format!("{:.2}{spread} %", 100.0 * accuracy.mean);
        let range = format!("{:.2} to {:.2} %", 100.0 * lowest, 100.0 * highest);
        format!("{mean:>22}{range:>20}{parameters:>14}{step_milliseconds:>9.1} ms")
    }

    /// Points of a chart at `x`: the runs, then their mean with the standard deviation.
    pub(super) fn points(&self, x: f64, runs: &[&Run]) -> Vec<(f64, f64, f64)> {
        let mut points: Vec<(f64, f64, f64)> = runs.iter().map(|run| (x, 100.0 * run.accuracy, 0.0)).collect();
        points.push((x, 100.0 * self.accuracy.mean, 100.0 * self.accuracy.deviation.unwrap_or(0.0)));
        points
    }
}

/// Runs that came to their end, each with its name, in the order of the plan.
pub(super) struct Done {
    pub(super) runs: Vec<(String, Run)>,
    /// Names of those that could not be trained, and why.
    pub(super) failed: BTreeMap<String, String>,
}

impl Done {
    /// The runs of a name.
    pub(super) fn of(&self, name: &str) -> Vec<&Run> {
        self.runs.iter().filter(|(of, _)| of == name).map(|(_, run)| run).collect()
    }

    /// What the command ends with once its results are shown.
    pub(super) fn verdict(failed: &BTreeMap<String, String>) -> Outcome {
        match failed.first_key_value() {
            None => Ok(()),
            Some((first, reason)) => Err(Failure::failed(format!("{first} could not be trained: {reason}"))),
        }
    }
}

/// Trains all of `planned`, or takes them from their folders. `None` if the user interrupted it.
pub(super) fn train(adapter: &AdapterOptions, folder: &Path, planned: &[Planned]) -> Outcome<Option<Done>> {
    // What would end the experiment after hours is found before it starts: data that is not there (they are the same for all),
    // runs of other settings.
    planned.first().map(|planned| planned.config.open_data(Split::Test)).transpose()?;
    planned.iter().try_for_each(|planned| check(&planned.config))?;
    files::create(folder)?;
    let gpu = adapter.open()?;
    let tune = Tune::measured(&gpu);
    let stop = Interrupt::listen()?.control;
    let (mut runs, mut failed) = (Vec::new(), BTreeMap::new());
    for (at, Planned { name, config }) in planned.iter().enumerate() {
        // What is asked for twice is trained once and counts once.
        let is_known = planned[..at].iter().any(|before| before.config.output.dir == config.output.dir);
        if is_known || failed.contains_key(name) {
            continue;
        }
        let title = format!("{}/{} {name} seed {}", at + 1, planned.len(), config.train.seed);
        match complete(&gpu, &tune, config, &title, &stop) {
            Ok(Some(run)) => runs.push((name.clone(), run)),
            Ok(None) => {
                let folder = folder.display();
                print(format!("interrupted during {title}; the same command goes on from {folder}"));
                return Ok(None);
            }
            // The others are still worth their time.
            Err(failure) => {
                eprintln!("{title}: {failure}");
                failed.insert(name.clone(), failure.to_string());
            }
        }
    }
    if runs.is_empty() {
        let reasons: Vec<String> = failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        return Err(Failure::failed(format!("no run came to its end ({})", reasons.join("; "))));
    }
    Ok(Some(Done { runs, failed }))
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

const RESULT: &str = "result.json";

/// Steps that are timed.
const STEPS: u64 = 10;

fn finished(dir: &Path) -> Outcome<Option<Run>> {
    let path = dir.join(RESULT);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::input(format!("{} is no result of this experiment ({error}); delete it", path.display()))
    })
}

/// Refuses a folder with a run of other settings.
fn check(config: &TrainConfig) -> Outcome {
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
