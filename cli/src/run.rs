//! `lara run`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use lara_models::attend::Array;
use lara_models::train::TrainConfig;
use lara_models::weights::{Metadata, TensorFile};
use lara_models::{Error, Input, Model};
use lara_runtime::{Gpu, Header, Mode, Tape, Tensor, Tune};
use pollster::block_on;
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::{files, model};

/// Run a model on the tensors of a file.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara run hf:timm/deit_tiny_patch16_224.fb_in1k --input in.safetensors --output out.safetensors
  lara run model/ --input io.safetensors --output out.safetensors --against io.safetensors
  lara run runs/digits --input in.safetensors --output out.safetensors --tap blocks.0 --tap blocks.0.attn.weights
  lara run model/ --input in.safetensors --output out.safetensors --set attention.mechanism=lara \\
    --set attention.proposal_gen=no-param-pool --against exact.safetensors --tolerance 0.5

Input: images [batch, channels, height, width], normalised; any size that the patches divide, since the position table is
resampled to it. Output: logits and features (the tokens in front of the classifier); --tap adds tokens, pooled, blocks.N,
blocks.N.attn.q (k, v, out) and blocks.N.attn.weights. In either file a name may have input. or output. in front.")]
pub(crate) struct Options {
    /// A run's folder, a checkpoint, a safetensors file, a folder with config.json, or `hf:ORG/NAME[@REVISION]`.
    checkpoint: PathBuf,
    /// safetensors file with the input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// safetensors file to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// safetensors file to compare with: every output that it has, too.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Largest difference allowed, as a share of the largest number of the tensor; beyond it the exit code is 1.
    #[arg(long, default_value_t = 2e-5)]
    tolerance: f64,
    /// Also write this activation; may be given several times.
    #[arg(long, value_name = "NAME")]
    tap: Vec<String>,
    /// Configuration for a file that carries none: a preset or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance attention.mechanism=lara; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

/// What is always written.
const OUTPUTS: [&str; 2] = ["logits", "features"];

/// What was done.
#[derive(Serialize)]
struct Report {
    output: PathBuf,
    /// Shapes of the tensors written.
    tensors: Vec<(String, Vec<usize>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compared: Vec<Difference>,
}

/// How far a tensor is from another program's.
#[derive(Serialize)]
struct Difference {
    name: String,
    /// The largest difference of two numbers.
    largest_difference: f64,
    /// The same as a share of the largest number that was expected.
    relative: f64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let input = TensorFile::open(&options.input)?;
    let reference = options.against.as_ref().map(TensorFile::open).transpose()?;
    files::check_output(&options.input, &options.output)?;
    if let Some(against) = &options.against {
        files::check_output(against, &options.output)?;
    }
    let sets = with_image_size(&input, &options.set);
    let model = model::open(&options.checkpoint, options.preset.as_deref(), &sets)?;
    let given = read_inputs(&input, &model.config)?;
    let expected = reference.as_ref().map(expected).unwrap_or_default();
    let mut wanted: Vec<String> = OUTPUTS.iter().map(|name| (*name).to_owned()).collect();
    wanted.extend(options.tap.iter().cloned().chain(expected.keys().cloned()));
    let gpu = options.adapter.open()?;
    let results = block_on(compute(&gpu, &model, &given, &wanted))?;
    files::check_finite(&results, "the input or a weight is too large for the model")?;
    files::write_tensors(&options.output, &results, &Metadata::new())?;
    let mut compared = Vec::new();
    for (name, stored) in &expected {
        let found = results.iter().find(|(known, _)| known == name).map(|(_, array)| array);
        let Some((found, reference)) = found.zip(reference.as_ref()) else { continue };
        compared.push(difference(name, found, reference.numbers(stored)?)?);
    }
    if options.against.is_some() && compared.is_empty() {
        return Err(Failure::input(format!(
            "--against {} has none of the outputs {}, so nothing is compared",
            options.against.as_deref().unwrap_or(std::path::Path::new("")).display(),
            results.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")
        )));
    }
    let report = Report {
        output: options.output.clone(),
        tensors: results.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect(),
        compared,
    };
    if options.json {
        print_json(&report)?
    } else {
        show(&report)
    }
    let far = |difference: &&Difference| difference.relative.is_nan() || difference.relative > options.tolerance;
    match report.compared.iter().filter(far).max_by(|a, b| a.relative.total_cmp(&b.relative)) {
        None => Ok(()),
        Some(Difference { name, relative, .. }) => Err(Failure::failed(format!(
            "{name} differs by {relative:.2e} of its largest number, more than --tolerance {:.2e}",
            options.tolerance
        ))),
    }
}

/// A tensor of the file by the name of an input, with or without `input.` in front.
fn stored_as(file: &TensorFile, name: &str) -> Option<String> {
    [name.to_owned(), format!("input.{name}")].into_iter().find(|name| file.shape(name).is_some())
}

/// The settings, with the size of the images in the file where none is set.
fn with_image_size(file: &TensorFile, sets: &[String]) -> Vec<String> {
    let mut all = sets.to_vec();
    let shape = stored_as(file, "images").and_then(|name| file.shape(&name).map(<[usize]>::to_vec));
    if let (Some(&[_, _, height, width]), false) = (shape.as_deref(), sets.iter().any(|set| set.contains("image_size")))
    {
        let size = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
        all.push(format!("model.image_size={size}"));
    }
    all
}

/// What the model takes, in its order, with the number of samples in the file.
fn read_inputs(file: &TensorFile, config: &TrainConfig) -> Outcome<Vec<Array>> {
    let path = file.path().display();
    let read = |Input { name, .. }: &Input| -> Outcome<Array> {
        let stored = stored_as(file, name).ok_or_else(|| {
            let there: Vec<&str> = file.names().collect();
            Failure::input(format!("{path} has no tensor {name}, which the model takes; it has {}", there.join(", ")))
        })?;
        let (shape, values) = file.numbers(&stored)?;
        let array = Array { shape, values };
        match array.not_finite() {
            None => Ok(array),
            Some((value, place)) => Err(Failure::input(format!(
                "{stored} in {path} is {value} at {place:?}; every value must be a finite number of f32"
            ))),
        }
    };
    let arrays = config.model.inputs(1).iter().map(read).collect::<Outcome<Vec<Array>>>()?;
    let batch = arrays.first().and_then(|array| array.shape.first().copied()).unwrap_or(0);
    for (Input { name, shape }, array) in config.model.inputs(batch.max(1)).iter().zip(&arrays) {
        if array.shape != shape.dims() {
            return Err(Failure::input(format!(
                "{name} in {path} has the shape {:?}, but the model takes {shape}",
                array.shape
            )));
        }
    }
    Ok(arrays)
}

/// Names of outputs that a file has numbers for, and what it calls them.
fn expected(file: &TensorFile) -> BTreeMap<String, String> {
    let is_input = |name: &str| name == "images" || name.starts_with("input.");
    let ours = |name: &str| {
        let bare = name.strip_prefix("output.").unwrap_or(name);
        // What Hugging Face calls the attention of a layer.
        match bare.strip_prefix("attention_").filter(|layer| layer.bytes().all(|byte| byte.is_ascii_digit())) {
            Some(layer) => weights_of(layer),
            None => bare.to_owned(),
        }
    };
    file.names().filter(|name| !is_input(name)).map(|name| (ours(name), name.to_owned())).collect()
}

/// The name of a block's attention weights.
fn weights_of(layer: impl std::fmt::Display) -> String {
    format!("blocks.{layer}.attn.weights")
}

/// Runs the model once and reads what is wanted, each once, in the order of `wanted`; of the outputs that are always
/// written those that the model has.
async fn compute(gpu: &Gpu, model: &Model, given: &[Array], wanted: &[String]) -> Outcome<Vec<(String, Array)>> {
    let (tune, config) = (Tune::measured(gpu), &model.config);
    let batch = given.first().map_or(1, |array| array.shape[0]);
    let record = |tape: &mut Tape<'_>| record(tape, config, batch, wanted);
    let (plan, (inputs, outputs)) = model.compile(gpu, &tune, config, Mode::Eval, record).await?;
    let seed = config.train.seed;
    let header = Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() };
    let run = inputs
        .iter()
        .zip(given)
        .fold(plan.run().header(header), |run, (&tensor, array)| run.write(tensor, &array.values));
    run.steps().submit()?;
    let mut results = Vec::new();
    for (name, tensor) in outputs {
        let array = Array { shape: tensor.dims().to_vec(), values: plan.read(tensor).await? };
        results.push((name, array));
    }
    Ok(results)
}

/// The inputs of a model, and outputs by their names.
type Recorded = (Vec<Tensor>, Vec<(String, Tensor)>);

fn record(tape: &mut Tape<'_>, config: &TrainConfig, batch: usize, wanted: &[String]) -> Result<Recorded, Error> {
    let inputs = config.model.declare(tape, batch);
    let mut known: BTreeMap<String, Tensor> = BTreeMap::new();
    let outputs = config.build()?.forward_hooked(tape, &inputs, &mut |tape, site| {
        let name = weights_of(site.layer);
        if wanted.contains(&name) {
            known.insert(name, site.mechanism.weights(tape, site.qkv, site.context));
        }
    });
    known.extend(tape.rec.named().iter().map(|(name, tensor)| (name.clone(), *tensor)));
    known.extend(outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor)));
    let mut found: Vec<(String, Tensor)> = Vec::new();
    for name in wanted {
        match known.get(name) {
            _ if found.iter().any(|(there, _)| there == name) => {}
            Some(&tensor) => found.push((name.clone(), tensor)),
            None if OUTPUTS.contains(&name.as_str()) => {}
            None => {
                let weights = (0..config.model.depth()).map(weights_of);
                let all: Vec<String> = known.into_keys().chain(weights).collect();
                return Err(Error::BadInput(format!("the model has no {name}; it has {}", all.join(", "))));
            }
        }
    }
    found.iter().for_each(|(_, tensor)| tape.rec.pin(*tensor));
    Ok((inputs, found))
}

fn difference(name: &str, found: &Array, (shape, expected): (Vec<usize>, Vec<f32>)) -> Outcome<Difference> {
    if found.shape != shape {
        return Err(Failure::input(format!(
            "{name} is {:?} here, but {shape:?} in what it is compared with",
            found.shape
        )));
    }
    let differences = found.values.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    // One that is no number stays: nothing compares with it.
    let largest_difference = differences.fold(0.0, |most: f64, d| if d > most || d.is_nan() { d } else { most });
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
    let relative = if largest_difference == 0.0 { 0.0 } else { largest_difference / largest };
    Ok(Difference { name: name.to_owned(), largest_difference, relative })
}

fn show(report: &Report) {
    let tensors: Vec<String> = report.tensors.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
    print(format!("{}: {}", report.output.display(), tensors.join(", ")));
    for Difference { name, largest_difference, relative } in &report.compared {
        print(format!("{name}: largest difference {largest_difference:.3e}, relative {relative:.3e}"));
    }
}
