//! One attention layer on tensors of the caller's: recorded and compiled once, run as often as wanted.
//!
//! ```no_run
//! use lara_models::attend::{Array, Arrays, Layer, Setting, Want, shapes};
//! use lara_runtime::attention::{AttentionConfig, MechanismKind};
//! use lara_runtime::{Gpu, Tune};
//!
//! # async fn attend(q: Array, k: Array, v: Array) -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = Gpu::open(&Default::default()).await?;
//! let config = AttentionConfig { mechanism: MechanismKind::Ra, ..AttentionConfig::default() };
//! let given = Arrays::from([("q".into(), q), ("k".into(), k), ("v".into(), v)]);
//! let setting = Setting::new(config);
//! let layer = Layer::compile(&gpu, &Tune::measured(&gpu), &setting, Want::Output, &shapes(&given)).await?;
//! let out: Array = layer.run(&given, 0).await?;
//! # Ok(())
//! # }
//! ```

mod file;
mod input;

use std::collections::BTreeMap;

use lara_runtime::attention::{AttentionConfig, Context, Grid, Need, Qkv, mechanism};
use lara_runtime::{Gpu, Header, Memory, Mode, Parameters, Plan, Role, Tape, Tensor, Tune};

use crate::compile::compile;
use crate::{Error, Result};

pub use file::{Input, parse_grid, refuse_not_finite};
pub use input::Sizes;

/// A tensor on the host: row-major, the last size varies fastest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// As many values as the product of the sizes.
    pub values: Vec<f32>,
}

impl Array {
    /// The indices of a flat position.
    pub fn place(&self, mut at: usize) -> Vec<usize> {
        let mut place: Vec<usize> = Vec::with_capacity(self.shape.len());
        for &size in self.shape.iter().rev() {
            place.push(at % size.max(1));
            at /= size.max(1);
        }
        place.reverse();
        place
    }

    /// The first value that is not finite, with its indices.
    pub fn not_finite(&self) -> Option<(f32, Vec<usize>)> {
        let at = self.values.iter().position(|x| !x.is_finite())?;
        Some((self.values[at], self.place(at)))
    }
}

/// Tensors by name: q [B, H, N, D], k and v [B, H, M, D], what the mechanism reads besides
/// ([`AttentionConfig::extras`]), learned weights under the names that the mechanism declares, and for gradients `dout`.
pub type Arrays = BTreeMap<String, Array>;

/// Shapes by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes of tensors.
pub fn shapes(arrays: &Arrays) -> Shapes {
    arrays.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect()
}

/// Everything about a layer but its numbers.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The mechanism.
    pub config: AttentionConfig,
    /// Whether random numbers are drawn as in training, and whether gradients are wanted.
    pub mode: Mode,
    /// Where the tokens behind the prefix lie.
    pub grid: Grid,
    /// Where the keys lie, if not as the queries do.
    pub key_grid: Option<Grid>,
    /// Tokens in front that belong to no place of the grid.
    pub prefix: usize,
}

impl Setting {
    /// Evaluation of a sequence.
    pub fn new(config: AttentionConfig) -> Self {
        Setting { config, mode: Mode::Eval, grid: Grid::Sequence, key_grid: None, prefix: 0 }
    }
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The output [B, H, N, D].
    Output,
    /// The attention weights [B, H, N, M].
    Map,
    /// The output, and the gradients for `dout`.
    Gradients,
}

/// A compiled layer with its weights.
pub struct Layer {
    plan: Plan,
    parameters: Parameters,
    recorded: Inputs,
    sizes: Sizes,
    /// Whether attending to unit vectors gives columns of the weights.
    has_columns: bool,
}

/// The tensors of a recorded layer.
#[derive(Debug)]
struct Inputs {
    /// What is written before a run.
    inputs: Vec<(&'static str, Tensor)>,
    result: Tensor,
    /// dq, dk, dv; `None` where the output does not depend on an input.
    gradients: Vec<(&'static str, Option<Tensor>)>,
}

impl Layer {
    /// Compiles a layer for tensors of these shapes, whose names say what they are; names that the mechanism does not ask
    /// for are ignored. Weights are zero until [`Layer::set_weights`].
    ///
    /// # Errors
    /// If shapes or settings do not go together, a tensor that the mechanism needs is not among them, or the device
    /// cannot hold the layer.
    pub async fn compile(gpu: &Gpu, tune: &Tune, setting: &Setting, want: Want, shapes: &Shapes) -> Result<Layer> {
        let sizes = Sizes::of(shapes)?;
        sizes.check_extras(shapes, &setting.config)?;
        let mut parameters = Parameters::new(gpu);
        let roles = if want == Want::Gradients { &[Role::Weight, Role::Grad][..] } else { &[Role::Weight] };
        let compiled = compile(gpu, tune, &mut parameters, setting.mode, roles, |tape| {
            let recorded = record(tape, setting, want, (sizes, shapes))?;
            // A mistake of the recording comes before a weight that is missing.
            tape.rec.finish()?;
            check_weights(tape.parameters(), &setting.config, shapes)?;
            Ok::<_, Error>(recorded)
        });
        let (plan, recorded) = compiled.await?;
        let has_columns = want == Want::Output && !setting.config.weighs_by_values();
        Ok(Layer { plan, parameters, recorded, sizes, has_columns })
    }

    /// Names of the weights that the mechanism learns.
    pub fn weights(&self) -> impl Iterator<Item = &str> {
        self.parameters.entries().iter().map(|entry| entry.name.as_str())
    }

    /// Takes every learned weight from `given`.
    ///
    /// # Errors
    /// If one is missing or has another shape than it was compiled with.
    pub fn set_weights(&self, given: &Arrays) -> Result<()> {
        for (index, entry) in self.parameters.entries().iter().enumerate() {
            let values = wanted(given, &entry.name, entry.shape.dims())?;
            self.parameters.write(self.plan.gpu(), Role::Weight, index, values)?;
        }
        Ok(())
    }

    /// Runs the layer on tensors of the shapes that it was compiled for; `seed` is that of its random draws. Returns the
    /// output, or the attention weights of a layer compiled for [`Want::Map`].
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, and if the device fails.
    pub async fn run(&self, given: &Arrays, seed: u64) -> Result<Array> {
        self.submit(given, None, seed)?;
        self.read(self.recorded.result).await
    }

    /// The attention weights [B, H, N, M] of a layer compiled for its output: D columns a run, by attending to unit
    /// vectors. For maps that are larger than the device can hold in one piece; draws are those of [`Layer::run`].
    ///
    /// # Errors
    /// Where the weights depend on the values ([`AttentionConfig::weighs_by_values`]), and as [`Layer::run`].
    pub async fn map_by_columns(&self, given: &Arrays, seed: u64) -> Result<Array> {
        if !self.has_columns {
            return Err(Error::BadInput(
                "the map has no columns to be worked out one by one: weights of pool-vmixed depend on the values; choose \
                 pool-mixed, or fewer tokens"
                    .into(),
            ));
        }
        let Sizes { batch, heads, queries, keys, dim } = self.sizes;
        let rows = batch * heads * queries;
        let mut map = Array { shape: vec![batch, heads, queries, keys], values: vec![0.0; rows * keys] };
        let mut units = vec![0.0f32; batch * heads * keys * dim];
        for first in (0..keys).step_by(dim) {
            let width = dim.min(keys - first);
            units.fill(0.0);
            for head in units.chunks_exact_mut(keys * dim) {
                (0..width).for_each(|column| head[(first + column) * dim + column] = 1.0);
            }
            self.submit(given, Some(&units), seed)?;
            let part = self.read(self.recorded.result).await?;
            for (row, seen) in map.values.chunks_exact_mut(keys).zip(part.values.chunks_exact(dim)) {
                row[first..first + width].copy_from_slice(&seen[..width]);
            }
        }
        Ok(map)
    }

    /// dq, dk and dv of the last run, then the gradient of every weight: `d` before its name.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn gradients(&self, given: &Arrays) -> Result<Vec<(String, Array)>> {
        let mut all = Vec::new();
        for (name, tensor) in &self.recorded.gradients {
            let shape = given.get(*name).map(|array| array.shape.clone()).unwrap_or_default();
            let values = match tensor {
                Some(tensor) => self.read(*tensor).await?.values,
                None => vec![0.0; shape.iter().product()],
            };
            all.push((format!("d{name}"), Array { shape, values }));
        }
        let values = self.parameters.read(self.plan.gpu(), Role::Grad).await?;
        for (entry, values) in self.parameters.entries_of(Role::Grad).zip(values) {
            all.push((format!("d{}", entry.name), Array { shape: entry.shape.dims().to_vec(), values }));
        }
        Ok(all)
    }

    /// Bytes of the compiled layer.
    pub fn memory(&self) -> Memory {
        self.plan.memory()
    }

    fn submit(&self, given: &Arrays, values: Option<&[f32]>, seed: u64) -> Result<()> {
        self.sizes.check_values(given)?;
        let header = Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() };
        let mut run = self.plan.run().header(header);
        for (name, tensor) in &self.recorded.inputs {
            let numbers = wanted(given, name, tensor.dims())?;
            run = run.write(*tensor, values.filter(|_| *name == "v").unwrap_or(numbers));
        }
        run.steps().submit()?;
        Ok(())
    }

    async fn read(&self, tensor: Tensor) -> Result<Array> {
        Ok(Array { shape: tensor.dims().to_vec(), values: self.plan.read(tensor).await? })
    }
}

/// The attention weights [B, H, N, M] of these tensors: in one piece where the device can hold that, otherwise some columns
/// at a time ([`Layer::map_by_columns`]).
///
/// # Errors
/// As [`Layer::compile`] and [`Layer::run`]; and if the map is too large, but its columns depend on the values.
pub async fn map(gpu: &Gpu, tune: &Tune, setting: &Setting, given: &Arrays, seed: u64) -> Result<Array> {
    use lara_runtime::Error::{OutOfMemory, TooLarge};
    let shapes = shapes(given);
    let refused = match Layer::compile(gpu, tune, setting, Want::Map, &shapes).await {
        Ok(layer) => {
            layer.set_weights(given)?;
            return layer.run(given, seed).await;
        }
        Err(error) => error,
    };
    let is_too_large = matches!(refused, Error::Runtime(TooLarge { .. } | OutOfMemory { .. }));
    if !is_too_large || setting.config.weighs_by_values() {
        return Err(refused);
    }
    tracing::info!("the attention weights in one piece: {refused}; they are worked out in columns");
    let layer = Layer::compile(gpu, tune, setting, Want::Output, &shapes).await?;
    layer.set_weights(given)?;
    layer.map_by_columns(given, seed).await
}

/// The numbers of a tensor that was compiled with this shape.
fn wanted<'a>(given: &'a Arrays, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
    match given.get(name) {
        Some(array) if array.shape == shape && array.values.len() == shape.iter().product::<usize>() => {
            Ok(&array.values)
        }
        Some(array) => Err(Error::BadInput(format!(
            "{name} has shape {:?} and {} values, but the layer was compiled for {shape:?}",
            array.shape,
            array.values.len()
        ))),
        None => Err(Error::BadInput(format!("{name} {shape:?} is missing, for which the layer was compiled"))),
    }
}

fn record(tape: &mut Tape<'_>, setting: &Setting, want: Want, (sizes, shapes): (Sizes, &Shapes)) -> Result<Inputs> {
    let Sizes { batch, heads, queries, keys, dim } = sizes;
    let (of_queries, of_keys) = ([batch, heads, queries, dim], [batch, heads, keys, dim]);
    let mut inputs = Vec::new();
    let [q, k, v] = [("q", of_queries), ("k", of_keys), ("v", of_keys)].map(|(name, shape)| {
        let tensor = if want == Want::Gradients { tape.variable(name, shape) } else { tape.input(name, shape) };
        inputs.push((name, tensor));
        tensor
    });
    let Setting { grid, key_grid, prefix, .. } = *setting;
    let mut context = Context { grid, key_grid, prefix, ..Context::default() };
    for extra in setting.config.extras(of_queries, keys) {
        // A learned one comes as a parameter.
        let Some(shape) = shapes.get(extra.name).filter(|_| extra.need != Need::Learned) else { continue };
        let tensor = tape.input(extra.name, &shape[..]);
        inputs.push((extra.name, tensor));
        match extra.name {
            "key_padding_mask" => context.key_padding_mask = Some(tensor),
            "noise" => context.noise = Some(tensor),
            "index" => context.index = Some(tensor),
            "projection" => context.projection = Some(tensor),
            other => return Err(Error::Failed(format!("the layer does not know how to hand {other} on"))),
        }
    }
    let mechanism = mechanism(&setting.config)?;
    let qkv = Qkv { q, k, v };
    let result = match want {
        Want::Map => mechanism.weights(tape, qkv, &context),
        Want::Output | Want::Gradients => mechanism.attend(tape, qkv, &context),
    };
    tape.rec.pin(result);
    let mut gradients = Vec::new();
    if want == Want::Gradients {
        let dout = tape.input("dout", result.dims());
        inputs.push(("dout", dout));
        tape.backward(&[(result, dout)]);
        gradients.extend([("q", q), ("k", k), ("v", v)].map(|(name, x)| (name, tape.gradient(x))));
        gradients.iter().filter_map(|(_, gradient)| *gradient).for_each(|gradient| tape.rec.pin(gradient));
    }
    Ok(Inputs { inputs, result, gradients })
}

/// Every weight that the mechanism learns must be there, and in its shape.
fn check_weights(parameters: &Parameters, config: &AttentionConfig, shapes: &Shapes) -> Result<()> {
    let entries = parameters.entries();
    let missing: Vec<String> = entries
        .iter()
        .filter(|entry| !shapes.contains_key(&entry.name))
        .map(|entry| format!("{} {}", entry.name, entry.shape))
        .collect();
    let name = config.mechanism.name();
    if !missing.is_empty() {
        return Err(Error::BadInput(format!(
            "{name} with these settings has learned weights, and the input lacks {}; add them, or choose settings \
             without (proposal_gen=no-param-pool, sample_scheme=fixed)",
            missing.join(", ")
        )));
    }
    match entries.iter().find(|entry| shapes[&entry.name] != entry.shape.dims()) {
        None => Ok(()),
        Some(entry) => Err(Error::BadInput(format!(
            "{} has shape {:?} but {name} with these settings takes {}",
            entry.name, shapes[&entry.name], entry.shape
        ))),
    }
}
