//! Runs an operation on the GPU and compares it with its reference, forward and backward.

use std::collections::HashMap;
use std::sync::OnceLock;

use lara_runtime::random::philox;
use lara_runtime::{Gpu, GpuOptions, Parameters, Plan, Role, Tape, Tensor, Tune, Variant};

use crate::case::{Case, Kind};
use crate::{Dual, GOLDEN_TOLERANCE, GOLDEN_VARIANTS, Golden, GoldenCase, Real};

/// A naive implementation, generic over the number.
pub trait Reference {
    /// Outputs for these inputs, flat and row-major, in the order in which the operation returns them.
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>>;
}

/// The adapter under test: `LARA_ADAPTER` names it, otherwise the default one.
pub fn adapter() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let options = GpuOptions { adapter: std::env::var("LARA_ADAPTER").ok(), ..GpuOptions::default() };
        Gpu::open_blocking(&options).unwrap_or_else(|error| panic!("tests need an adapter: {error}"))
    })
}

/// A tuner that takes the given variants without measuring.
pub fn tune(preferred: &[&str]) -> Tune {
    // A misspelt variant would leave the right one untested.
    let named = |name: &&str| Variant::named(name).unwrap_or_else(|error| panic!("{error}"));
    Tune::fixed(&preferred.iter().map(named).collect::<Vec<_>>())
}

/// `len` reproducible numbers between -1 and 1, representable in f32; different for every `seed`.
pub fn random(seed: u32, len: usize) -> Vec<f64> {
    (0..len as u32)
        .map(|i| {
            let bits = philox([i, 0, 0, 0], [seed, 0x7e57])[0];
            f64::from((f64::from(bits) / f64::from(u32::MAX) * 2.0 - 1.0) as f32)
        })
        .collect()
}

/// Checks values and gradients for every list of preferred variants, on poisoned buffers, after three runs, with the
/// operation recorded once (gradients stored) and twice (the second gradient added to the first).
///
/// # Panics
/// With the case's name and numbers if something differs.
pub fn check(case: &Case<'_>, reference: &impl Reference, variants: &[&[&str]]) {
    let expected = Expected::of(case, reference);
    let recordings = if case.has_gradients() { 2 } else { 1 };
    for preferred in variants {
        for copies in 1..=recordings {
            let result = run(case, preferred, copies);
            let name = format!("{} {preferred:?} x{copies}", case.name);
            expected.compare_values(&name, case, &result);
            expected.compare_gradients(&name, case, &result, copies as f64);
        }
    }
}

/// What the GPU computed.
pub struct Outcome {
    /// Values of the outputs, in order.
    pub outputs: Vec<Vec<f64>>,
    /// Gradients of the variables and parameters, in the order of the case, for [`cotangent`]s of the outputs.
    pub gradients: Vec<Vec<f64>>,
}

/// The gradient that output `index` of `len` elements receives in a check.
pub fn cotangent(index: usize, len: usize) -> Vec<f64> {
    random(1000 + index as u32, len)
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// A recorded case, before compilation.
struct Recorded {
    inputs: Vec<Option<Tensor>>,
    /// Gradients given to outputs, with the index of the output.
    seeds: Vec<(Tensor, usize)>,
    outputs: Vec<Tensor>,
    gradients: Vec<Option<Tensor>>,
}

fn record(case: &Case<'_>, tape: &mut Tape<'_>, copies: usize) -> Recorded {
    let inputs: Vec<Option<Tensor>> = case
        .inputs
        .iter()
        .map(|input| match input.kind {
            Kind::Variable => Some(tape.variable("x", input.shape)),
            Kind::Constant => Some(tape.input("x", input.shape)),
            Kind::Parameter(_) => None,
        })
        .collect();
    let given: Vec<Tensor> = inputs.iter().copied().flatten().collect();
    let (mut pairs, mut seeds, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for copy in 0..copies {
        let outputs = (case.build)(tape, &given);
        for (i, &y) in outputs.iter().enumerate().filter(|(i, _)| case.is_seeded(*i)) {
            let dy = tape.input("dy", y.shape());
            pairs.push((y, dy));
            seeds.push((dy, i));
        }
        outputs.iter().for_each(|&y| tape.rec.pin(y));
        if copy == 0 {
            first = outputs;
        }
    }
    if case.has_gradients() {
        tape.backward(&pairs);
    }
    let gradients: Vec<Option<Tensor>> = inputs.iter().map(|x| x.and_then(|x| tape.gradient(x))).collect();
    gradients.iter().flatten().for_each(|&g| tape.rec.pin(g));
    Recorded { inputs, seeds, outputs: first, gradients }
}

/// Runs a case three times on poisoned buffers, recorded `copies` times in one plan.
///
/// # Panics
/// With the case's name if it cannot be recorded, compiled or run.
pub fn run(case: &Case<'_>, preferred: &[&str], copies: usize) -> Outcome {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    let mut tape = Tape::new(&mut parameters, &tune(preferred), case.mode);
    let recorded = record(case, &mut tape, copies);
    let rec = tape.finish().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
    let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    plan.poison();
    for (input, tensor) in case.inputs.iter().zip(&recorded.inputs) {
        match (&input.kind, tensor) {
            (Kind::Parameter(name), _) => {
                let index = parameters.entries().iter().position(|e| e.name == *name);
                let index = index.unwrap_or_else(|| panic!("{}: no parameter {name} was declared", case.name));
                parameters.write(gpu, Role::Weight, index, &to_f32(&input.values)).unwrap();
                parameters.write(gpu, Role::Grad, index, &vec![f32::NAN; input.values.len()]).unwrap();
            }
            (_, Some(tensor)) => plan.write(*tensor, &to_f32(&input.values)).unwrap(),
            (_, None) => {}
        }
    }
    for (dy, i) in &recorded.seeds {
        plan.write(*dy, &to_f32(&cotangent(*i, dy.len()))).unwrap();
    }
    for _ in 0..3 {
        plan.run().header(case.header).steps().submit().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    let read = |t: Tensor| -> Vec<f64> {
        plan.read_blocking(t).unwrap_or_else(|e| panic!("{}: {e}", case.name)).into_iter().map(f64::from).collect()
    };
    let outputs = recorded.outputs.iter().map(|&y| read(y)).collect();
    let gradients = gradients(case, &recorded, &parameters, &read);
    Outcome { outputs, gradients }
}

fn gradients(
    case: &Case<'_>,
    recorded: &Recorded,
    parameters: &Parameters,
    read: &dyn Fn(Tensor) -> Vec<f64>,
) -> Vec<Vec<f64>> {
    if !case.has_gradients() {
        return Vec::new();
    }
    let values = pollster::block_on(parameters.read(adapter(), Role::Grad));
    let values = values.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let named: HashMap<&str, &Vec<f32>> =
        parameters.entries_of(Role::Grad).map(|e| e.name.as_str()).zip(&values).collect();
    let missing = |i: usize| panic!("{}: no gradient was recorded for input {i}", case.name);
    let inputs = case.inputs.iter().enumerate().filter(|(_, input)| input.has_gradient());
    inputs
        .map(|(i, input)| match &input.kind {
            Kind::Parameter(name) => named[name.as_str()].iter().copied().map(f64::from).collect(),
            _ => read(recorded.gradients[i].unwrap_or_else(|| missing(i))),
        })
        .collect()
}

/// Directions in which every gradient is compared.
const TRIALS: u32 = 3;

fn direction(input: usize, trial: u32, len: usize) -> Vec<f64> {
    random(2000 + 10 * trial + 100 * input as u32, len)
}

/// What the reference says.
struct Expected {
    values: Vec<Vec<f64>>,
    /// For every differentiable input and trial: <v, J u>, and the size of its terms.
    products: Vec<Vec<(f64, f64)>>,
}

impl Expected {
    fn of(case: &Case<'_>, reference: &impl Reference) -> Expected {
        let inputs = case.inputs.iter().enumerate().filter(|(_, i)| i.has_gradient() && case.has_gradients());
        let along = |input: usize| (0..TRIALS).map(|trial| Self::product(case, reference, input, trial)).collect();
        Expected { values: reference.eval(&case.values()), products: inputs.map(|(input, _)| along(input)).collect() }
    }

    fn product(case: &Case<'_>, reference: &impl Reference, input: usize, trial: u32) -> (f64, f64) {
        let u = direction(input, trial, case.inputs[input].values.len());
        let x: Vec<Vec<Dual>> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(i, given)| {
                let along = |at: usize| if i == input { u[at] } else { 0.0 };
                given.values.iter().enumerate().map(|(at, &v)| Dual(v, along(at))).collect()
            })
            .collect();
        let outputs = reference.eval(&x);
        let terms: Vec<f64> = outputs
            .iter()
            .enumerate()
            .filter(|(i, _)| case.is_seeded(*i))
            .flat_map(|(i, y)| y.iter().zip(cotangent(i, y.len())).map(|(y, v)| y.1 * v))
            .collect();
        (terms.iter().sum(), terms.iter().map(|t| t * t).sum::<f64>().sqrt())
    }

    fn compare_values(&self, name: &str, case: &Case<'_>, result: &Outcome) {
        assert_eq!(self.values.len(), result.outputs.len(), "{name}: the reference has other outputs");
        for (index, (want, got)) in self.values.iter().zip(&result.outputs).enumerate() {
            assert_close(&format!("{name}: output {index}"), want, got, case.tolerance);
        }
    }

    /// <v, J u> from dual numbers must equal <J^T v, u> from the GPU, for one input at a time and for several u.
    fn compare_gradients(&self, name: &str, case: &Case<'_>, result: &Outcome, copies: f64) {
        let inputs = (0..case.inputs.len()).filter(|&i| case.inputs[i].has_gradient());
        for ((input, gradient), products) in inputs.zip(&result.gradients).zip(&self.products) {
            for (trial, (product, terms)) in products.iter().enumerate() {
                let u = direction(input, trial as u32, gradient.len());
                let forward = product * copies;
                let backward: f64 = gradient.iter().zip(&u).map(|(g, u)| g * u).sum();
                // Rounding grows with the terms, not with their sum, which may cancel.
                let size = terms * copies + gradient.iter().zip(&u).map(|(g, u)| (g * u).powi(2)).sum::<f64>().sqrt();
                let error = (forward - backward).abs() / (size + 1e-3);
                assert!(
                    error <= case.tolerance * 5.0,
                    "{name}: gradient of input {input}, direction {trial}: <v, Ju> = {forward}, <J'v, u> = {backward} \
                     ({error:.1e})"
                );
            }
        }
    }
}

/// Fails where `got` differs from `want` by more than `tolerance` of the largest of `want` (at least 1e-3).
///
/// # Panics
/// With `name`, the place and both numbers.
pub fn assert_close(name: &str, want: &[f64], got: &[f64], tolerance: f64) {
    assert_eq!(want.len(), got.len(), "{name} has another length");
    let scale = largest(want).max(1e-3);
    for (at, (w, g)) in want.iter().zip(got).enumerate() {
        let error = (w - g).abs() / scale;
        assert!(error <= tolerance, "{name}: [{at}] is {g}, not {w} (relative error {error:.1e})");
    }
}

/// Compares every golden case whose name begins with `prefix` with what the GPU gives, in every variant, and
/// returns how many cases there are.
///
/// # Panics
/// With the case's name and its error.
pub fn check_golden(prefix: &str) -> usize {
    let golden = Golden::load();
    let names: Vec<&str> = golden.names().filter(|name| name.starts_with(prefix)).collect();
    for name in &names {
        let case = GoldenCase::parse(name).unwrap_or_else(|e| panic!("{e}"));
        for preferred in GOLDEN_VARIANTS {
            let got = pollster::block_on(case.output(adapter(), preferred)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_close(&format!("{name} {preferred:?}"), golden.case(name), &got, GOLDEN_TOLERANCE);
        }
    }
    names.len()
}
