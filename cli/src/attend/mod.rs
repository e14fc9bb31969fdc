//! `lara attend`

mod compare;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lara_models::Error;
use lara_models::attend::{self, Array, Arrays, Input, Layer, Setting, Want};
use lara_models::train::TrainConfig;
use lara_models::weights::{Metadata, TensorFile};
use lara_runtime::attention::{AttentionConfig, Grid};
use lara_runtime::{Mode, Tune, human_bytes};
use pollster::block_on;
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Outcome, print, print_json};
use crate::files;

/// What is to be lowered where the device does not suffice.
const LOWER: &str = "the batch, the heads or the tokens of q, k and v";

pub(crate) use compare::relative_error;

/// Apply an attention mechanism to tensors of a safetensors file.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara attend --input in.safetensors --output out.safetensors --mechanism softmax
  lara attend --input in.safetensors --output out.safetensors --grid 14x14 --set proposal_gen=no-param-pool --map
  lara attend --input in.safetensors --output out.safetensors --mechanism ra --mode train --noise exact --seed 7 --json
  lara attend --input in.safetensors --output out.safetensors --mechanism rfa --set features=64 --grad

Input tensors (any float type; read as f32):
  q [B, H, N, D], k and v [B, H, M, D]
  key_padding_mask [B, M]         1 where a key is padding, otherwise 0 (numbers or truth values)
  noise                           added to the proposals' means as it is: lara [B, H, C, D], with use_multisample
                                  [B, H, 2 C, D]; ra [B, H, N x num_samples, D]
  index [B, H, N x num_samples]   the keys that ra draws
  projection [H, features, D]     of rfa and performer, in the paper's units; sets projection=given, or is a learned weight
                                  under sample_scheme=learnable and kernel=mlp-fourier
  q_landmarks.linear.weight|bias, q_landmarks.norm.weight|bias and k_landmarks.*
                                  learned weights, needed by the proposals that have some (pool, adaptive-1d, ..)
  features.weight|bias            learned weights of kernel=mlp-fourier
  dout [B, H, N, D]               the output's gradient, for --grad

Output tensors:
  out [B, H, N, D]
  weights [B, H, N, M]            with --map: what the mechanism attends to; its product with v is out, and rows sum to 1
                                  (less where performer's smallest normaliser, 0.01, is in force)
  dq, dk, dv                      with --grad, and of every learned weight: d before its name, such as
                                  dq_landmarks.linear.weight

Keys of --set: mechanism, causal, num_landmarks, proposal_gen, pool_module_type, mis_type, alpha_coeff, use_antithetics,
use_multisample, noise, padding, num_samples, features, projection, sample_scheme, redraw_interval, projection_seed,
kernel, cos_weighting.")]
pub(crate) struct Options {
    /// File with q, k and v.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// softmax, ra, rfa, performer or lara. Short for --set mechanism=...
    #[arg(long, value_name = "MECHANISM")]
    mechanism: Option<String>,
    /// How the tokens lie: 14x14 (rows, columns) or 8x14x14 (frames, rows, columns); without it one after the other.
    #[arg(long, value_name = "HxW|FxHxW", value_parser = attend::parse_grid)]
    grid: Option<Grid>,
    /// How the keys lie, where they lie differently from the queries. Keys of another number than the queries count as a
    /// sequence without it.
    #[arg(long, value_name = "HxW|FxHxW", value_parser = attend::parse_grid, requires = "grid")]
    key_grid: Option<Grid>,
    /// Tokens in front that belong to no place of the grid: 1 for a class token.
    #[arg(long, value_name = "N", default_value_t = 0)]
    prefix: usize,
    /// Set a value of the attention, for instance num_landmarks=49; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// With noise and fresh draws, as in training, or without.
    #[arg(long, value_enum, default_value_t = When::Eval)]
    mode: When,
    /// Noise of lara and ra in mode train: exact, released or none. Short for --set noise=...
    #[arg(long, value_name = "NOISE")]
    noise: Option<String>,
    /// Seed of everything drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the attention weights: N x M numbers a head.
    #[arg(long)]
    map: bool,
    /// Also write gradients; the input must have dout.
    #[arg(long)]
    grad: bool,
    /// Leave the comparison with exact softmax out, which takes O(N M) time.
    #[arg(long)]
    no_compare: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    Eval,
    Train,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    attention: AttentionConfig,
    mode: &'static str,
    seed: u64,
    output: PathBuf,
    /// Shapes of the tensors written.
    tensors: Vec<(String, Vec<usize>)>,
    /// Pooled activations, inputs and outputs, weights and gradients of the layer.
    device_bytes: u64,
    #[serde(flatten)]
    error: Option<compare::Difference>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut setting = setting(options)?;
    let chosen =
        options.set.iter().any(|set| set.trim_start().trim_start_matches("attention.").starts_with("projection="));
    let input = Input::new(TensorFile::open(&options.input)?, &mut setting, options.grad, chosen)?;
    let mut given = input.read()?;
    files::check_output(&options.input, &options.output)?;
    let gpu = options.adapter.open()?;
    let tune = Tune::measured(&gpu);
    let want = if options.grad { Want::Gradients } else { Want::Output };
    let layer =
        block_on(Layer::compile(&gpu, &tune, &setting, want, input.shapes())).map_err(Error::lowering(LOWER))?;
    input.read_weights(layer.weights(), &setting.config, &mut given)?;
    layer.set_weights(&given)?;
    let mut results = vec![("out".to_owned(), block_on(layer.run(&given, options.seed))?)];
    if options.grad {
        results.extend(block_on(layer.gradients(&given))?);
    }
    let device_bytes = layer.memory().peak();
    drop(layer);
    if options.map {
        let map = block_on(attend::map(&gpu, &tune, &setting, &given, options.seed));
        let map = map.map_err(Error::lowering("the tokens of q and k, or leave --map out"))?;
        results.insert(1, ("weights".to_owned(), map));
    }
    attend::refuse_not_finite(&results, &given)?;
    let error = match options.no_compare {
        true => None,
        false => Some(compare::with_softmax(&gpu, &tune, &setting, &given, &results)?),
    };
    write(&options.output, &results, &setting.config)?;
    let report = Report {
        mode: if options.mode == When::Train { "train" } else { "eval" },
        seed: options.seed,
        output: options.output.clone(),
        tensors: results.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect(),
        device_bytes,
        error,
        attention: setting.config,
    };
    if options.json { print_json(&report) } else { show(&report, &given) }
}

fn setting(options: &Options) -> Outcome<Setting> {
    let short = |key: &str, value: &Option<String>| value.as_ref().map(|value| format!("{key}={value}"));
    let mut sets: Vec<String> = short("mechanism", &options.mechanism).into_iter().collect();
    sets.extend(short("noise", &options.noise));
    sets.extend(options.set.iter().cloned());
    let config = TrainConfig::attention_from(&AttentionConfig::default(), &sets)?;
    let mode = match options.mode {
        When::Train => Mode::Train { accumulate: false },
        When::Eval if options.grad => Mode::Differentiate,
        When::Eval => Mode::Eval,
    };
    let grid = options.grid.unwrap_or_default();
    Ok(Setting { config, mode, grid, key_grid: options.key_grid, prefix: options.prefix })
}

/// Writes the results, and the settings that gave them.
fn write(path: &Path, results: &[(String, Array)], config: &AttentionConfig) -> Outcome {
    let metadata = Metadata::from([("attention".to_owned(), serde_json::to_string(config)?)]);
    files::write_tensors(path, results, &metadata)
}

fn show(report: &Report, given: &Arrays) -> Outcome {
    let name = report.attention.mechanism.name();
    let (q, k) = (&given["q"].shape, &given["k"].shape);
    print(format!(
        "{name} ({}) of q {q:?} and k, v {k:?}; {} on the device",
        report.mode,
        human_bytes(report.device_bytes)
    ));
    if let Some(error) = &report.error {
        print(format!(
            "against exact softmax: relative error {:.3e}, largest difference {:.3e}",
            error.relative_error, error.largest_difference
        ));
        if let Some(kl) = error.mean_kl {
            print(format!("mean KL(softmax map || {name} map) {kl:.3e}"));
        }
    }
    let tensors: Vec<String> = report.tensors.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
    print(format!("{}: {}", report.output.display(), tensors.join(", ")));
    Ok(())
}
