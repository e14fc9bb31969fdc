//! Queries, keys and values to approximate attention on: random ones, and those of a trained model.

use std::path::PathBuf;

use clap::Args;
use lara_models::attend::{Array, Arrays};
use lara_models::data::Split;
use lara_models::train::TrainConfig;
use lara_models::weights::TensorFile;
use lara_models::{LayerShape, Model};
use lara_runtime::attention::{AttentionConfig, Grid, Qkv};
use lara_runtime::random::Stream;
use lara_runtime::{Gpu, Mode, Plan, Tape, Tensor, Tune};

use crate::fail::{Failure, Outcome};
use crate::model;

/// Where the inputs come from, as options of a command.
#[derive(Args)]
pub(super) struct Inputs {
    /// `random`, or `checkpoint DIR`: the queries, keys and values of a trained model, block by block.
    #[arg(long, num_args = 1..=2, value_names = ["random|checkpoint", "DIR"], default_value = "random")]
    source: Vec<String>,
    /// Pictures for the model; without them other held-out images of its data set for every seed.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Held-out images for each seed.
    #[arg(long, default_value_t = 16)]
    count: usize,
    /// Configuration for a model file that carries none: a preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Repetitions: each has its own inputs and its own draws.
    #[arg(long, default_value_t = 5)]
    pub(super) seeds: u64,
    /// Random inputs: standard deviation of queries and keys.
    #[arg(long, default_value_t = 0.5)]
    amplitude: f64,
    /// Random inputs: number of tokens.
    #[arg(long, default_value_t = 196)]
    tokens: usize,
    /// Random inputs: channels of a head.
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    /// Random inputs: number of heads.
    #[arg(long, default_value_t = 4)]
    heads: usize,
}

impl Inputs {
    /// Whether the numbers are in their ranges and the source is one.
    pub(super) fn check(&self) -> Outcome {
        let numbers = [
            ("--seeds", self.seeds as usize),
            ("--tokens", self.tokens),
            ("--head-dim", self.head_dim),
            ("--heads", self.heads),
            ("--count", self.count),
        ];
        if let Some((option, _)) = numbers.into_iter().find(|(_, value)| *value == 0) {
            return Err(Failure::input(format!("{option} is 0; it must be at least 1")));
        }
        if self.head_dim > 256 {
            return Err(Failure::input(format!("--head-dim is {}; at most 256 channels fit a head", self.head_dim)));
        }
        if !(self.amplitude.is_finite() && self.amplitude >= 0.0) {
            let given = self.amplitude;
            return Err(Failure::input(format!("--amplitude is {given}; it must be a finite number of 0 or more")));
        }
        Wanted::parse(&self.source).map(|_| ())
    }
}

/// Inputs that belong together: those of a block, or the random ones.
pub(super) struct Group {
    pub(super) name: String,
    /// q, k and v for every seed, all of one shape.
    pub(super) draws: Vec<Arrays>,
    /// Weights of the block's own landmark generator, where it has learned some.
    pub(super) weights: Arrays,
}

/// Where the inputs come from.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) groups: Vec<Group>,
    pub(super) grid: Grid,
    pub(super) prefix: usize,
    /// Attention settings to start from.
    pub(super) attention: AttentionConfig,
}

/// Which source `--source` names.
enum Wanted {
    Random,
    Checkpoint(PathBuf),
}

impl Wanted {
    fn parse(words: &[String]) -> Outcome<Wanted> {
        match words {
            [word] if word == "random" => Ok(Wanted::Random),
            [word, path] if word == "checkpoint" => Ok(Wanted::Checkpoint(path.into())),
            _ => Err(Failure::input(format!(
                "--source {} is no source; write --source random, or --source checkpoint DIR with a run's folder",
                words.join(" ")
            ))),
        }
    }
}

impl Source {
    pub(super) fn open(gpu: &Gpu, tune: &Tune, options: &Inputs) -> Outcome<Source> {
        match Wanted::parse(&options.source)? {
            Wanted::Random => random(options),
            Wanted::Checkpoint(path) => trained(gpu, tune, options, &path),
        }
    }
}

/// q and k normal with standard deviation `--amplitude`, v standard normal: the paper's setting.
fn random(options: &Inputs) -> Outcome<Source> {
    if !options.images.is_empty() {
        return Err(Failure::input("--images needs a model to show them to; add --source checkpoint DIR"));
    }
    let shape = vec![1, options.heads, options.tokens, options.head_dim];
    let len: usize = shape.iter().product();
    let draw = |seed: u64| {
        let tensor = |name: &str, amplitude: f32| {
            let mut stream = Stream::new(seed, name);
            let values = (0..len).map(|_| amplitude * stream.normal()).collect();
            (name.to_owned(), Array { shape: shape.clone(), values })
        };
        let amplitude = options.amplitude as f32;
        Arrays::from([tensor("q", amplitude), tensor("k", amplitude), tensor("v", 1.0)])
    };
    let group = Group { name: "random".into(), draws: (0..options.seeds).map(draw).collect(), weights: Arrays::new() };
    Ok(Source {
        name: format!("random, amplitude {}", options.amplitude),
        groups: vec![group],
        grid: Grid::Sequence,
        prefix: 0,
        attention: AttentionConfig::default(),
    })
}

/// A model's forward pass up to its queries, keys and values.
struct Recorded {
    plan: Plan,
    images: Tensor,
    blocks: Vec<Qkv>,
}

fn trained(gpu: &Gpu, tune: &Tune, options: &Inputs, path: &std::path::Path) -> Outcome<Source> {
    let model = model::open(path, options.preset.as_deref(), &[])?;
    let config = &model.config;
    let batches = if options.images.is_empty() { held_out(config, options)? } else { given(config, options)? };
    let recorded = record(gpu, tune, &model, batches[0].len() / config.model.image_shape().len())?;
    let sizes = recorded.blocks.first().map(|block| block.q.shape());
    let differs = |Qkv { q, k, .. }: &Qkv| [q, k].iter().any(|x| Some(x.shape()) != sizes);
    if let Some(block) = recorded.blocks.iter().position(differs) {
        return Err(Failure::input(format!(
            "{}: an experiment takes blocks that all have the same tokens, as queries and as keys, but block {block} has others; \
             `lara view` and `lara export-maps` take any",
            path.display()
        )));
    }
    let mut groups = Vec::new();
    for index in 0..recorded.blocks.len() {
        let weights = model.file().map_or_else(|| Ok(Arrays::new()), |file| landmark_weights(file, index))?;
        groups.push(Group { name: format!("block {index}"), draws: Vec::new(), weights });
    }
    for seed in 0..options.seeds {
        let images = &batches[seed as usize % batches.len()];
        recorded.plan.run().write(recorded.images, images).steps().submit()?;
        for (group, Qkv { q, k, v }) in groups.iter_mut().zip(&recorded.blocks) {
            let mut draw = Arrays::new();
            for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
                let values = recorded.plan.read_blocking(*tensor)?;
                draw.insert(name.to_owned(), Array { shape: tensor.dims().to_vec(), values });
            }
            group.draws.push(draw);
        }
    }
    let LayerShape { grid, prefix, .. } = config.model.layer(0);
    Ok(Source {
        name: format!("{} ({})", path.display(), config.attention_of(0)?.mechanism.name()),
        groups,
        grid: Grid::Plane(grid),
        prefix,
        attention: config.attention_of(0)?,
    })
}

/// Weights of a block's landmark generators, under the names that a mechanism alone declares.
fn landmark_weights(file: &TensorFile, block: usize) -> Outcome<Arrays> {
    let scope = format!("blocks.{block}.attn.");
    let mut weights = Arrays::new();
    for name in file.names() {
        if let Some(inner) = name.strip_prefix(&scope).filter(|inner| inner.contains("_landmarks.")) {
            let (shape, values) = file.numbers(name)?;
            weights.insert(inner.to_owned(), Array { shape, values });
        }
    }
    Ok(weights)
}

fn record(gpu: &Gpu, tune: &Tune, model: &Model, batch: usize) -> Outcome<Recorded> {
    let config = &model.config;
    let compiled = model.compile(gpu, tune, config, Mode::Eval, |tape: &mut Tape<'_>| {
        let inputs = config.model.declare(tape, batch);
        let mut blocks = Vec::new();
        config.build()?.forward_hooked(tape, &inputs, &mut |_, site| blocks.push(site.qkv));
        blocks.iter().flat_map(|Qkv { q, k, v }| [*q, *k, *v]).for_each(|tensor| tape.rec.pin(tensor));
        Ok::<_, lara_models::Error>((inputs[0], blocks))
    });
    let (plan, (images, blocks)) = pollster::block_on(compiled)?;
    Ok(Recorded { plan, images, blocks })
}

/// Other held-out images for every seed, spread over the set.
fn held_out(config: &TrainConfig, options: &Inputs) -> Outcome<Vec<Vec<f32>>> {
    let (images, reader) = (config.open_data(Split::Test)?, config.preprocess()?);
    let (count, seeds) = (options.count, options.seeds as usize);
    let wanted = count.saturating_mul(seeds);
    if wanted > images.len() {
        return Err(Failure::input(format!(
            "--count {count} images for each of {seeds} seeds are {wanted}, but {} has {} held-out images; lower --count",
            images.name(),
            images.len()
        )));
    }
    let batch = |seed: usize| -> Outcome<Vec<f32>> {
        let mut batch = Vec::new();
        for at in 0..count {
            let index = (at * seeds + seed) * images.len() / wanted;
            batch.extend(reader.normalise(&images.get(index)?.pixels)?);
        }
        Ok(batch)
    };
    (0..seeds).map(batch).collect()
}

/// The user's pictures, for every seed.
fn given(config: &TrainConfig, options: &Inputs) -> Outcome<Vec<Vec<f32>>> {
    let reader = config.preprocess()?;
    let mut batch = Vec::new();
    for path in &options.images {
        batch.extend(reader.normalise(&reader.read(path)?)?);
    }
    Ok(vec![batch])
}
