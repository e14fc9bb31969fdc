//! One attention layer on tensors of the user's: recorded and compiled once, run as often as wanted.

use std::collections::BTreeMap;

use lara_models::weights::TensorFile;
use lara_runtime::attention::{AttentionConfig, Context, Grid, Qkv, mechanism};
use lara_runtime::{Gpu, Header, Memory, Mode, Parameters, Plan, Recorder, Role, Tape, Tensor, Tune};

use super::input::learns_projection;
use crate::fail::{Failure, Outcome};

/// A tensor on the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Array {
    /// A tensor of a file, all of whose values are finite.
    pub(super) fn read(file: &TensorFile, name: &str) -> Outcome<Array> {
        let (shape, values) = file.numbers(name)?;
        let array = Array { shape, values };
        match array.values.iter().position(|x| !x.is_finite()) {
            None => Ok(array),
            Some(at) => Err(Failure::input(format!(
                "{name} in {} is {} at {:?}; every value must be a finite number of f32",
                file.path().display(),
                array.values[at],
                array.place(at)
            ))),
        }
    }

    /// The indices of a flat position.
    pub(super) fn place(&self, mut at: usize) -> Vec<usize> {
        let mut place: Vec<usize> = Vec::with_capacity(self.shape.len());
        for &size in self.shape.iter().rev() {
            place.push(at % size.max(1));
            at /= size.max(1);
        }
        place.reverse();
        place
    }
}

/// Tensors by name: q, k, v and whatever else was given.
pub(crate) type Arrays = BTreeMap<String, Array>;

/// Everything about a layer but its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) config: AttentionConfig,
    pub(crate) mode: Mode,
    pub(crate) grid: Grid,
    pub(crate) key_grid: Option<Grid>,
    pub(crate) prefix: usize,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The output.
    Output,
    /// The attention weights.
    Map,
    /// The output, and the gradients for `dout`.
    Gradients,
}

/// What a layer reads besides q, k and v, by the names of the input file.
const EXTRAS: [&str; 4] = ["key_padding_mask", "noise", "index", "projection"];

/// A compiled layer.
pub(crate) struct Layer {
    plan: Plan,
    inputs: Vec<(&'static str, Tensor)>,
    result: Tensor,
    /// dq, dk, dv; `None` where the output does not depend on an input.
    gradients: Vec<(&'static str, Option<Tensor>)>,
}

/// A recorded layer: what [`Layer`] is before it is compiled.
struct Recorded {
    inputs: Vec<(&'static str, Tensor)>,
    result: Tensor,
    gradients: Vec<(&'static str, Option<Tensor>)>,
    recorder: Recorder,
}

/// What the runtime refuses for its shape or setting is the user's input here.
fn refused(error: lara_runtime::Error) -> Failure {
    match error {
        lara_runtime::Error::Shape(sentence) => Failure::input(sentence),
        other => other.into(),
    }
}

impl Layer {
    /// Compiles a layer for tensors of the shapes of `given`, whose names say what they are. Learned weights are
    /// declared in `parameters` and taken from `given`, too.
    pub(crate) fn compile(
        gpu: &Gpu,
        tune: &Tune,
        parameters: &mut Parameters,
        (setting, want): (&Setting, Want),
        given: &Arrays,
    ) -> Outcome<Layer> {
        let Recorded { inputs, result, gradients, recorder } = record(tune, parameters, setting, want, given)?;
        check_weights(parameters, &setting.config, given)?;
        parameters.allocate_blocking(gpu, &[Role::Weight])?;
        if want == Want::Gradients {
            parameters.allocate_blocking(gpu, &[Role::Grad])?;
        }
        let plan = Plan::compile_blocking(gpu, recorder, parameters).map_err(refused)?;
        for (index, entry) in parameters.entries().iter().enumerate() {
            parameters.write(gpu, Role::Weight, index, &given[&entry.name].values);
        }
        Ok(Layer { plan, inputs, result, gradients })
    }

    /// Runs the layer on tensors of the shapes it was compiled for; `seed` is that of its random draws.
    pub(crate) fn run(&self, given: &Arrays, seed: u64) -> Outcome<Array> {
        let header = Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() };
        let mut run = self.plan.run().header(header);
        for (name, tensor) in &self.inputs {
            if let Some(array) = given.get(*name) {
                run = run.write(*tensor, &array.values);
            }
        }
        run.steps().submit()?;
        self.read(self.result)
    }

    fn read(&self, tensor: Tensor) -> Outcome<Array> {
        Ok(Array { shape: tensor.dims().to_vec(), values: self.plan.read_blocking(tensor)? })
    }

    /// dq, dk and dv of the last run, then the gradient of every weight (`d` before its name).
    pub(crate) fn gradients(&self, given: &Arrays, parameters: &Parameters) -> Outcome<Vec<(String, Array)>> {
        let mut all = Vec::new();
        for (name, tensor) in &self.gradients {
            let array = match tensor {
                Some(tensor) => self.read(*tensor)?,
                None => Array { values: vec![0.0; given[*name].values.len()], ..Array::default() },
            };
            all.push((format!("d{name}"), Array { shape: given[*name].shape.clone(), ..array }));
        }
        let values = pollster::block_on(parameters.read(self.plan.gpu(), Role::Grad))?;
        for (entry, values) in parameters.entries().iter().zip(values) {
            all.push((format!("d{}", entry.name), Array { shape: entry.shape.dims().to_vec(), values }));
        }
        Ok(all)
    }

    /// Bytes of the compiled layer.
    pub(crate) fn memory(&self) -> Memory {
        self.plan.memory()
    }
}

fn record(
    tune: &Tune,
    parameters: &mut Parameters,
    setting: &Setting,
    want: Want,
    given: &Arrays,
) -> Outcome<Recorded> {
    let mut tape = Tape::new(parameters, tune, setting.mode);
    let mut inputs = Vec::new();
    let shape = |name: &str| given.get(name).map(|array| &array.shape[..]);
    let [q, k, v] = ["q", "k", "v"].map(|name| {
        let shape = shape(name).unwrap_or(&[1, 1, 1, 1]);
        let tensor = if want == Want::Gradients { tape.variable(name, shape) } else { tape.input(name, shape) };
        inputs.push((name, tensor));
        tensor
    });
    let [key_padding_mask, noise, index, projection] = EXTRAS.map(|name| {
        // A learned projection comes as a parameter.
        let is_weight = name == "projection" && learns_projection(&setting.config);
        let tensor = shape(name).filter(|_| !is_weight).map(|shape| tape.input(name, shape));
        inputs.extend(tensor.map(|tensor| (name, tensor)));
        tensor
    });
    let Setting { grid, key_grid, prefix, .. } = *setting;
    let context = Context { grid, key_grid, prefix, causal: false, key_padding_mask, noise, index, projection };
    let mechanism = mechanism(&setting.config)?;
    let qkv = Qkv { q, k, v };
    let result = match want {
        Want::Map => mechanism.weights(&mut tape, qkv, &context),
        Want::Output | Want::Gradients => mechanism.attend(&mut tape, qkv, &context),
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
    Ok(Recorded { inputs, result, gradients, recorder: tape.finish().map_err(refused)? })
}

/// Every weight that the mechanism learns must have been given, and in its shape.
fn check_weights(parameters: &Parameters, config: &AttentionConfig, given: &Arrays) -> Outcome {
    let entries = parameters.entries();
    let missing: Vec<String> = entries
        .iter()
        .filter(|entry| !given.contains_key(&entry.name))
        .map(|entry| format!("{} {}", entry.name, entry.shape))
        .collect();
    let name = config.mechanism.name();
    if !missing.is_empty() {
        return Err(Failure::input(format!(
            "{name} with these settings has learned weights, and the input lacks {}; add them, or choose settings \
             without (proposal_gen=no-param-pool, sample_scheme=fixed)",
            missing.join(", ")
        )));
    }
    match entries.iter().find(|entry| given[&entry.name].shape != entry.shape.dims()) {
        None => Ok(()),
        Some(entry) => Err(Failure::input(format!(
            "{} has shape {:?} but {name} with these settings takes {}",
            entry.name, given[&entry.name].shape, entry.shape
        ))),
    }
}
