//! `lara experiment ablation`: LARA's settings, one varied at a time (paper, appendix H).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lara_models::train::TrainConfig;
use lara_runtime::attention::{AttentionConfig, MechanismKind, MisType, PoolModule, ProposalGen};
use serde::Serialize;

use super::files;
use super::plot::{Chart, Series};
use super::runs::{self, Budget, Done, Planned, Run, Summary};
use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};

/// Train the same model with other settings of LARA: number of landmarks, alpha_coeff, weighting, proposal generator.
///
/// One of them is varied at a time, from what the preset (with --set) says; that run is trained once and marked in every
/// table. Accuracy is that of the last step on the held-out images, not the best of several. A run that is complete in
/// the output folder is not repeated, an interrupted one goes on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara experiment ablation --preset digits --seeds 3
  lara experiment ablation --preset mnist --factors landmarks,mis --seeds 3 --epochs 1
  lara experiment ablation --preset digits --factors landmarks,alpha --landmarks 1,4,16 --alpha 0,2,8 --json")]
pub(crate) struct Options {
    #[command(flatten)]
    budget: Budget,
    /// What is varied, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Factor::Landmarks, Factor::Alpha, Factor::Mis, Factor::Proposals])]
    factors: Vec<Factor>,
    /// Numbers of landmarks, squares, beside the preset's; up to five about it unless given.
    #[arg(long, value_delimiter = ',', value_name = "N,N,..")]
    landmarks: Vec<usize>,
    /// Values of alpha_coeff beside the preset's.
    #[arg(long, value_delimiter = ',', value_name = "X,X,..", default_values_t = [0.0_f32, 0.5, 1.0, 2.0, 4.0])]
    alpha: Vec<f32>,
    /// Folder for the runs, for ablation.csv and .json and for a chart a factor.
    #[arg(long, value_name = "DIR", default_value = "runs/ablation")]
    output_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Factor {
    /// attention.num_landmarks
    Landmarks,
    /// attention.alpha_coeff
    Alpha,
    /// attention.mis_type
    Mis,
    /// attention.proposal_gen, and attention.pool_module_type
    Proposals,
}

impl Factor {
    fn name(self) -> &'static str {
        match self {
            Factor::Landmarks => "landmarks",
            Factor::Alpha => "alpha",
            Factor::Mis => "mis",
            Factor::Proposals => "proposals",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Factor::Landmarks => "number of landmarks",
            Factor::Alpha => "alpha_coeff",
            Factor::Mis => "weighting of the proposals",
            Factor::Proposals => "proposal generator",
        }
    }
}

/// One value of a factor.
struct Value {
    /// As tables show it.
    name: String,
    /// `KEY=VALUE` of the configuration.
    sets: Vec<String>,
    is_baseline: bool,
}

impl Value {
    /// What runs with it are called, and their folders: those of the preset's value are the same for all factors.
    fn run(&self, factor: Factor) -> String {
        let (name, factor) = (self.name.replace('/', "-"), factor.name());
        if self.is_baseline {
            BASELINE.to_owned()
        } else if name.starts_with(factor) {
            name
        } else {
            format!("{factor}-{name}")
        }
    }
}

const BASELINE: &str = "baseline";

/// One line of a table.
#[derive(Serialize)]
struct Row {
    value: String,
    /// Whether it is what the preset says.
    baseline: bool,
    /// What its runs are called.
    run: String,
    #[serde(flatten)]
    summary: Summary,
}

impl Row {
    /// The value, marked if it is the preset's.
    fn label(&self) -> String {
        format!("{}{}", self.value, if self.baseline { "*" } else { "" })
    }
}

#[derive(Serialize)]
struct Table {
    factor: Factor,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct NamedRun {
    name: String,
    #[serde(flatten)]
    run: Run,
}

#[derive(Serialize)]
struct Report {
    preset: String,
    /// What is varied from.
    baseline: AttentionConfig,
    factors: Vec<Table>,
    runs: Vec<NamedRun>,
    /// Runs that could not be trained, and why.
    failed: BTreeMap<String, String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let base = baseline(options)?;
    let mut factors = Vec::new();
    for (at, &factor) in options.factors.iter().enumerate() {
        if !options.factors[..at].contains(&factor) {
            factors.push((factor, values(factor, &base, options)?));
        }
    }
    let planned = planned(options, &factors)?;
    let Some(done) = runs::train(&options.adapter, &options.output_dir, &planned)? else { return Ok(()) };
    let tables: Vec<Table> = factors.iter().map(|(factor, values)| table(*factor, values, &done)).collect();
    save_runs(&tables, &done, &options.output_dir)?;
    for table in &tables {
        let stem = options.output_dir.join(format!("ablation-{}", table.factor.name()));
        chart(table, &done, &options.budget.preset).write(&stem)?;
    }
    let Done { runs, failed } = done;
    let runs = runs.into_iter().map(|(name, run)| NamedRun { name, run }).collect();
    let preset = options.budget.preset.clone();
    let report = Report { preset, baseline: base.attention, factors: tables, runs, failed };
    files::write(&options.output_dir.join("ablation.json"), &serde_json::to_string_pretty(&report)?)?;
    if options.json {
        print_json(&report)?;
    } else {
        show(&report, options);
    }
    Done::verdict(&report.failed)
}

/// What is varied from: a configuration in which LARA's settings have a say, the same in all its blocks.
fn baseline(options: &Options) -> Outcome<TrainConfig> {
    if options.budget.seeds == 0 || options.factors.is_empty() {
        return Err(Failure::input("there is nothing to train; --seeds must be at least 1 and --factors name one"));
    }
    let config = options.budget.config(&[])?;
    let blocks = lara_blocks(&config)?;
    if blocks.is_empty() {
        let (preset, mechanism) = (&options.budget.preset, config.attention.mechanism.name());
        return Err(Failure::input(format!(
            "no block of {preset} attends with LARA ({mechanism} is set), whose settings this varies; give \
             --set attention=lara"
        )));
    }
    for layer in blocks {
        let of_block = config.attention_of(layer)?;
        if (AttentionConfig { mechanism: config.attention.mechanism, ..of_block }) != config.attention {
            return Err(Failure::input(format!(
                "model.attention_layers gives block {layer} settings of its own, which would stay as they are while \
                 [attention] is varied; move them to [attention]"
            )));
        }
    }
    if options.factors.contains(&Factor::Alpha) && config.attention.mis_type != MisType::MisOpt {
        return Err(Failure::input(
            "alpha_coeff does something under attention.mis_type = mis-opt only; leave alpha out of --factors, or give \
             --set attention.mis_type=mis-opt",
        ));
    }
    Ok(config)
}

/// Blocks that attend with LARA.
fn lara_blocks(config: &TrainConfig) -> Outcome<Vec<usize>> {
    let mut blocks = Vec::new();
    for layer in 0..config.model.depth() {
        if config.attention_of(layer)?.mechanism == MechanismKind::Lara {
            blocks.push(layer);
        }
    }
    Ok(blocks)
}

/// The values of a factor, in their order, that of the preset among them.
fn values(factor: Factor, base: &TrainConfig, options: &Options) -> Outcome<Vec<Value>> {
    let attention = &base.attention;
    let value = |name: String, sets: Vec<String>, is_baseline: bool| Value { name, sets, is_baseline };
    Ok(match factor {
        Factor::Landmarks => {
            let of = |n: usize| {
                value(format!("{n}"), vec![format!("attention.num_landmarks={n}")], n == attention.num_landmarks)
            };
            landmarks(base, &options.landmarks)?.into_iter().map(of).collect()
        }
        Factor::Alpha => {
            let mut alphas = [&options.alpha[..], &[attention.alpha_coeff]].concat();
            alphas.sort_by(f32::total_cmp);
            alphas.dedup();
            let of = |x: f32| {
                value(format!("{x}"), vec![format!("attention.alpha_coeff={x:?}")], x == attention.alpha_coeff)
            };
            alphas.into_iter().map(of).collect()
        }
        Factor::Mis => {
            let of = |(name, mis): (&str, MisType)| {
                value(name.to_owned(), vec![format!("attention.mis_type={name}")], mis == attention.mis_type)
            };
            let all = [("mis-opt", MisType::MisOpt), ("mis-bh", MisType::MisBh), ("mis-biased", MisType::MisBiased)];
            all.into_iter().map(of).collect()
        }
        Factor::Proposals => proposals(attention),
    })
}

/// The generators for grids: each with the preset's kind of projection, and `pool` with the other kind, too. `adaptive-1d`
/// is for sequences.
fn proposals(attention: &AttentionConfig) -> Vec<Value> {
    let (preset, other) = match attention.pool_module_type {
        PoolModule::Light => ("light", "dense"),
        PoolModule::Dense => ("dense", "light"),
    };
    let of = |name: &str, generator: ProposalGen, module: Option<&str>| {
        let mut sets = vec![format!("attention.proposal_gen={name}")];
        sets.extend(module.map(|module| format!("attention.pool_module_type={module}")));
        let is_baseline = generator == attention.proposal_gen && module.is_none_or(|module| module == preset);
        let module = module.map(|module| format!("/{module}")).unwrap_or_default();
        Value { name: format!("{name}{module}"), sets, is_baseline }
    };
    vec![
        of("pool", ProposalGen::Pool, Some(preset)),
        of("pool", ProposalGen::Pool, Some(other)),
        of("pool-mixed", ProposalGen::PoolMixed, Some(preset)),
        of("pool-vmixed", ProposalGen::PoolVmixed, Some(preset)),
        of("no-param-pool", ProposalGen::NoParamPool, None),
        of("no-param-pool-mixed", ProposalGen::NoParamPoolMixed, None),
    ]
}

/// Sides of landmark grids that are tried.
const SIDES: [usize; 10] = [1, 2, 3, 4, 5, 7, 10, 14, 20, 28];

/// How many of them, where none are named.
const TRIED: usize = 5;

/// Numbers of landmarks: those asked for, or those about the preset's that the smallest grid has room for; and the
/// preset's.
fn landmarks(base: &TrainConfig, asked: &[usize]) -> Outcome<Vec<usize>> {
    if let Some(odd) = asked.iter().find(|n| n.isqrt().pow(2) != **n) {
        let side = odd.isqrt();
        return Err(Failure::input(format!(
            "--landmarks {odd} is no square; on a grid there would be {} ({side} x {side})",
            side * side
        )));
    }
    let preset = base.attention.num_landmarks;
    let mut numbers = asked.to_vec();
    if asked.is_empty() {
        let grids = lara_blocks(base)?.into_iter().map(|layer| base.model.layer(layer).grid);
        let room = grids.flatten().min().unwrap_or(1);
        let sides: Vec<usize> = SIDES.into_iter().filter(|&side| side <= room).collect();
        let about = sides.iter().filter(|&&side| side < preset.isqrt()).count();
        let first = about.saturating_sub(TRIED / 2).min(sides.len().saturating_sub(TRIED));
        numbers.extend(sides[first..].iter().take(TRIED).map(|side| side * side));
    }
    numbers.push(preset);
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Every run, all checked before the first begins: the preset's, then those that differ from it.
fn planned(options: &Options, factors: &[(Factor, Vec<Value>)]) -> Outcome<Vec<Planned>> {
    let (budget, folder) = (&options.budget, &options.output_dir);
    let mut planned = budget.plan(folder, &[], |_| BASELINE.to_owned())?;
    for (factor, values) in factors {
        for value in values.iter().filter(|value| !value.is_baseline) {
            planned.extend(budget.plan(folder, &value.sets, |_| value.run(*factor))?);
        }
    }
    Ok(planned)
}

/// The values that at least one run came to its end with.
fn table(factor: Factor, values: &[Value], done: &Done) -> Table {
    let mut rows = Vec::new();
    for value in values {
        let run = value.run(factor);
        let of = done.of(&run);
        if !of.is_empty() {
            rows.push(Row { value: value.name.clone(), baseline: value.is_baseline, run, summary: Summary::of(&of) });
        }
    }
    Table { factor, rows }
}

/// A line a factor, value and seed: the preset's runs once for every factor, so that each is whole by itself.
fn save_runs(tables: &[Table], done: &Done, folder: &Path) -> Outcome {
    let mut csv = format!("factor,value,baseline,{}\n", Run::CSV);
    for Table { factor, rows } in tables {
        for Row { value, baseline, run, .. } in rows {
            for run in done.of(run) {
                csv += &format!("{},{value},{baseline},{}\n", factor.name(), run.csv());
            }
        }
    }
    files::write(&folder.join("ablation.csv"), &csv)
}

fn chart(table: &Table, done: &Done, preset: &str) -> Chart {
    let baseline = table.rows.iter().find(|row| row.baseline);
    let series = |(at, row): (usize, &Row)| Series {
        name: row.label(),
        points: row.summary.points(at as f64, &done.of(&row.run)),
    };
    Chart {
        title: format!("Held-out accuracy, {preset}: runs, their mean and standard deviation"),
        x: format!("{} (* and dashed line: the preset's)", table.factor.title()),
        y: "accuracy, %".into(),
        categories: table.rows.iter().map(Row::label).collect(),
        level: baseline.map(|row| 100.0 * row.summary.accuracy.mean),
        series: table.rows.iter().enumerate().map(series).collect(),
    }
}

fn show(report: &Report, options: &Options) {
    let (first, seeds) = (&report.runs[0].run, options.budget.seeds);
    print(format!("{}: {} steps, {seeds} seeds, {}; * is the preset's", report.preset, first.steps, first.adapter));
    for Table { factor, rows } in &report.factors {
        print("");
        print(format!("{:<28}{}", factor.title(), Summary::head()));
        for row in rows {
            print(format!("{:<28}{}", row.label(), row.summary.cells()));
        }
    }
    let charts: Vec<String> = report.factors.iter().map(|table| format!("ablation-{}", table.factor.name())).collect();
    print("");
    print(format!("{}: ablation.csv, .json, and {} as .svg, .png", options.output_dir.display(), charts.join(", ")));
}
