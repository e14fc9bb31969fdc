//! Errors of the estimators, point by point.

use clap::ValueEnum;
use lara_models::attend::{Array, Layer, Setting, Want, shapes};
use lara_runtime::attention::{AttentionConfig, Grid, MechanismKind, NoiseScale, Projection, SampleScheme};
use lara_runtime::{Gpu, Mode, Tune};
use pollster::block_on;
use serde::Serialize;

use super::source::{Group, Source};
use super::statistics::Mean;
use crate::attend::relative_error;
use crate::fail::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Estimator {
    /// Random features, independent rows.
    RfaIid,
    /// Random features, orthogonal rows.
    RfaOrthogonal,
    /// Randomized attention with exact noise.
    Ra,
    /// LARA with its proposals' means.
    LaraMean,
    /// LARA with the landmarks that a model learned, at their means.
    LaraLearned,
    /// LARA with a draw of exact noise from each proposal.
    LaraExact,
}

impl Estimator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Estimator::RfaIid => "rfa-iid",
            Estimator::RfaOrthogonal => "rfa-orthogonal",
            Estimator::Ra => "ra",
            Estimator::LaraMean => "lara-mean",
            Estimator::LaraLearned => "lara-learned",
            Estimator::LaraExact => "lara-exact",
        }
    }

    /// The mechanism with `samples` samples.
    fn setting(self, samples: usize, source: &Source, base: &AttentionConfig) -> Setting {
        let rfa = |projection| AttentionConfig {
            mechanism: MechanismKind::Rfa,
            features: samples,
            projection,
            // A new projection for every seed.
            sample_scheme: SampleScheme::Default,
            redraw_interval: 1,
            ..base.clone()
        };
        let num_samples = i32::try_from(samples).unwrap_or(i32::MAX);
        let lara = || AttentionConfig { mechanism: MechanismKind::Lara, num_landmarks: samples, ..base.clone() };
        let config = match self {
            Estimator::RfaIid => rfa(Projection::Iid),
            Estimator::RfaOrthogonal => rfa(Projection::Orthogonal),
            Estimator::Ra => {
                AttentionConfig { mechanism: MechanismKind::Ra, num_samples, noise: NoiseScale::Exact, ..base.clone() }
            }
            Estimator::LaraMean => lara(),
            Estimator::LaraLearned => AttentionConfig { proposal_gen: source.attention.proposal_gen, ..lara() },
            Estimator::LaraExact => AttentionConfig { noise: NoiseScale::Exact, ..lara() },
        };
        let mode = if matches!(self, Estimator::LaraMean | Estimator::LaraLearned) {
            Mode::Eval
        } else {
            Mode::Train { accumulate: false }
        };
        Setting { config, mode, grid: source.grid, key_grid: None, prefix: source.prefix }
    }
}

/// Error of one estimator with one number of samples.
#[derive(Clone, Serialize)]
pub(super) struct Point {
    /// The block, `random`, or `all` for the mean over blocks.
    pub(super) group: String,
    pub(super) estimator: &'static str,
    pub(super) samples: usize,
    /// Mean over outputs of the squared difference.
    pub(super) mse: Mean,
    /// Norm of the difference over the norm of softmax attention's output.
    pub(super) relative: Mean,
}

/// What could not be computed, and why.
#[derive(Serialize)]
pub(super) struct Skipped {
    pub(super) estimator: &'static str,
    pub(super) samples: Vec<usize>,
    pub(super) reason: String,
}

/// Squared and relative error of every seed.
type Errors = Vec<[f64; 2]>;

/// Softmax attention of every group and seed.
pub(super) fn exact_outputs(gpu: &Gpu, tune: &Tune, source: &Source) -> Outcome<Vec<Vec<Array>>> {
    let config = AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() };
    let setting = Setting { config, mode: Mode::Eval, grid: source.grid, key_grid: None, prefix: source.prefix };
    let draw = &source.groups[0].draws[0];
    let layer = block_on(Layer::compile(gpu, tune, &setting, Want::Output, &shapes(draw)))?;
    let of_group = |group: &Group| group.draws.iter().map(|draw| Ok(block_on(layer.run(draw, 0))?)).collect();
    source.groups.iter().map(of_group).collect()
}

/// Name of the baseline.
pub(super) const UNIFORM: &str = "uniform";

pub(super) struct Experiment<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) tune: &'a Tune,
    pub(super) source: &'a Source,
    pub(super) exact: &'a [Vec<Array>],
    pub(super) points: Vec<Point>,
    pub(super) skipped: Vec<Skipped>,
}

impl Experiment<'_> {
    /// Errors of an estimator over all groups and seeds. What cannot be on these inputs or this adapter leaves a gap, not a
    /// failed experiment.
    pub(super) fn measure(&mut self, estimator: Estimator, samples: usize, base: &AttentionConfig) -> Outcome {
        let setting = estimator.setting(samples, self.source, base);
        match self.errors(estimator, &setting)? {
            Ok(all) => self.push(estimator.name(), samples, &all),
            Err(reason) => self.skip(estimator.name(), samples, reason),
        }
        Ok(())
    }

    /// The errors, or why there are none. One compiled layer serves all blocks that have no weights of their own.
    fn errors(&self, estimator: Estimator, setting: &Setting) -> Outcome<Result<Vec<Errors>, String>> {
        if let Some(reason) = too_many_proposals(setting, self.source) {
            return Ok(Err(reason));
        }
        let learned = estimator == Estimator::LaraLearned;
        if learned && self.source.groups.iter().any(|group| group.weights.is_empty()) {
            return Ok(Err("there is no model with learned landmarks; --source checkpoint DIR names one".to_owned()));
        }
        let (mut layer, mut all) = (None, Vec::new());
        for (group, exact) in self.source.groups.iter().zip(self.exact) {
            if layer.is_none() || learned {
                let mut given = group.draws[0].clone();
                given.extend(group.weights.clone());
                match block_on(Layer::compile(self.gpu, self.tune, setting, Want::Output, &shapes(&given))) {
                    Ok(compiled) => {
                        compiled.set_weights(&given)?;
                        layer = Some(compiled);
                    }
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
            let mut errors = Errors::new();
            for (seed, (draw, exact)) in group.draws.iter().zip(exact).enumerate() {
                if let Some(layer) = &layer {
                    errors.push(errors_of(&block_on(layer.run(draw, seed as u64 + 1))?.values, &exact.values));
                }
            }
            all.push(errors);
        }
        Ok(Ok(all))
    }

    fn skip(&mut self, estimator: &'static str, samples: usize, reason: String) {
        match self.skipped.last_mut().filter(|last| last.estimator == estimator && last.reason == reason) {
            Some(last) => last.samples.push(samples),
            None => self.skipped.push(Skipped { estimator, samples: vec![samples], reason }),
        }
    }

    /// The error of attending to everything equally.
    pub(super) fn uniform(&mut self) {
        let mut all = Vec::new();
        for (group, exact) in self.source.groups.iter().zip(self.exact) {
            let pairs = group.draws.iter().zip(exact);
            all.push(pairs.map(|(draw, exact)| errors_of(&means(&draw["v"]), &exact.values)).collect());
        }
        self.push(UNIFORM, 0, &all);
    }

    fn push(&mut self, estimator: &'static str, samples: usize, all: &[Errors]) {
        let mut point = |group: &str, errors: &[[f64; 2]]| {
            let [mse, relative] = [0, 1].map(|at| Mean::of(&errors.iter().map(|e| e[at]).collect::<Vec<_>>()));
            self.points.push(Point { group: group.to_owned(), estimator, samples, mse, relative });
        };
        for (group, errors) in self.source.groups.iter().zip(all) {
            point(&group.name, errors);
        }
        if all.len() > 1 {
            let over_groups = |seed: usize| {
                [0, 1].map(|at| all.iter().map(|errors| errors[seed][at]).sum::<f64>() / all.len() as f64)
            };
            point(ALL, &(0..all[0].len()).map(over_groups).collect::<Vec<_>>());
        }
    }
}

/// Why LARA would not have the number of proposals asked for: it would silently take another.
fn too_many_proposals(setting: &Setting, source: &Source) -> Option<String> {
    let asked = setting.config.num_landmarks;
    let tokens = source.groups[0].draws[0]["k"].shape[2] - setting.prefix;
    if setting.config.mechanism != MechanismKind::Lara {
        None
    } else if asked > tokens {
        Some(format!("{tokens} tokens make no more than {tokens} proposals"))
    } else if setting.grid != Grid::Sequence && asked.isqrt().pow(2) != asked {
        Some(format!("on a grid LARA has a square number of proposals, and {asked} is none"))
    } else {
        None
    }
}

/// Name of the mean over groups.
pub(super) const ALL: &str = "all";

fn errors_of(x: &[f32], exact: &[f32]) -> [f64; 2] {
    let squares: f64 = x.iter().zip(exact).map(|(x, e)| (f64::from(*x) - f64::from(*e)).powi(2)).sum();
    [squares / x.len() as f64, relative_error(x, exact)]
}

/// The mean over tokens in the place of every token.
fn means(v: &Array) -> Vec<f32> {
    let (tokens, dim) = (v.shape[2], v.shape[3]);
    let mut all = Vec::with_capacity(v.values.len());
    for head in v.values.chunks(tokens * dim) {
        let sum = |d: usize| head.iter().skip(d).step_by(dim).map(|x| f64::from(*x)).sum::<f64>();
        let mean: Vec<f32> = (0..dim).map(|d| (sum(d) / tokens as f64) as f32).collect();
        (0..tokens).for_each(|_| all.extend(&mean));
    }
    all
}
