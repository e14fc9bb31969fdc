use lara_runtime::attention::Attend;
use lara_runtime::ops::{CrossEntropy, Gelu, LayerNorm, Layout, Linear, MatMul, Residual, TokenPooling};
use lara_runtime::random::philox;
use lara_runtime::{
    Error, Header, Init, Memory, Mode, Op, Parameters, Plan, Recorder, Role, StepBuilder, Tape, Tensor, human_bytes,
};
use lara_shaders::{GELU, LAYERNORM};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

fn recorder() -> Recorder {
    Recorder::new(tune(&[]))
}

fn compile(rec: Recorder) -> Plan {
    Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("the recording compiles")
}

fn values(len: usize, seed: u32) -> Vec<f32> {
    random(seed, len).into_iter().map(|x| x as f32).collect()
}

/// What a recorder says about a step of gelu's `forward` that `change` finishes.
fn complaint(change: impl Fn(StepBuilder<'_>, [Tensor; 2])) -> String {
    let mut rec = recorder();
    let tensors = [rec.scratch("x", [64]), rec.scratch("y", [64])];
    rec.enter("block0");
    let step = rec.step(&GELU, "forward");
    change(step, tensors);
    rec.finish().expect_err("this step is wrong").to_string()
}

#[test]
fn recording_errors_are_sentences_with_the_right_names() {
    let right = |step: StepBuilder<'_>, [x, y]: [Tensor; 2]| {
        step.bind("x", x).bind("y", y).uint("quads", 16).flag("accumulate", false).dispatch([1, 1, 1]);
    };
    let mut rec = recorder();
    let tensors = [rec.scratch("x", [64]), rec.scratch("y", [64])];
    right(rec.step(&GELU, "forward"), tensors);
    rec.finish().expect("the right step is accepted");
    assert_eq!(rec.steps().len(), 1);

    let said = |change: &dyn Fn(StepBuilder<'_>, [Tensor; 2])| complaint(change);
    assert_eq!(
        said(&|s, t| right(s.bind("input", t[0]), t)),
        "block0/gelu.forward: binds `input`; the shader declares x, y"
    );
    assert_eq!(
        said(&|s, [x, _]| s.bind("x", x).uint("quads", 16).flag("accumulate", false).dispatch([1, 1, 1])),
        "block0/gelu.forward: does not bind `y`; the shader declares x, y"
    );
    assert_eq!(said(&|s, t| right(s.bind("x", t[0]), t)), "block0/gelu.forward: binds `x` twice");
    assert_eq!(
        said(&|s, [x, y]| s.bind("x", x).bind("y", y).uint("quads", 16).dispatch([1, 1, 1])),
        "block0/gelu.forward: does not set `params.accumulate`; the shader declares quads, accumulate"
    );
    assert_eq!(
        said(&|s, t| right(s.uint("cols", 3), t)),
        "block0/gelu.forward: sets `params.cols`; the shader declares quads, accumulate"
    );
    assert_eq!(
        said(&|s, t| right(s.float("quads", 16.0), t)),
        "block0/gelu.forward: `params.quads` is an integer in the shader"
    );
    assert_eq!(
        said(&|s, t| right(s.constant("TILE", 8.0), t)),
        "block0/gelu.forward: sets the constant `TILE`; the shader declares none"
    );
    assert_eq!(
        said(&|s, [x, _]| right(s, [x, x])),
        "block0/gelu.forward: binds one tensor to `y`, which is written, and to `x`"
    );
    assert_eq!(
        said(&|s, [x, y]| {
            s.bind("x", x).bind("y", y).uint("quads", 16).flag("accumulate", false).dispatch([1, 0, 1]);
        }),
        "block0/gelu.forward: dispatches [1, 0, 1] workgroups; every dimension must be at least 1"
    );
}

#[test]
fn a_misspelt_entry_point_and_a_float_for_an_integer_are_named() {
    let mut rec = recorder();
    rec.step(&GELU, "foward").dispatch([1, 1, 1]);
    assert_eq!(
        rec.finish().expect_err("no such entry").to_string(),
        "gelu.foward: shader gelu has no entry point `foward`"
    );
    let mut rec = recorder();
    let [x, gain, bias, y, statistics] = ["x", "gain", "bias", "y", "statistics"].map(|label| rec.scratch(label, [4]));
    let step = rec.step(&LAYERNORM, "forward").bind("x", x).bind("gain", gain).bind("bias", bias).bind("y", y);
    step.bind("statistics", statistics).uint("eps", 1).dispatch([1, 1, 1]);
    assert_eq!(
        rec.finish().expect_err("eps is a float").to_string(),
        "layernorm.forward: `params.eps` is f32 in the shader"
    );
}

#[test]
fn the_first_mistake_is_the_one_reported() {
    let mut rec = recorder();
    rec.fail(Error::Shape("first".into()));
    rec.fail(Error::Shape("second".into()));
    assert_eq!(rec.finish().expect_err("two mistakes").to_string(), "first");
}

/// x x^T of a square x, and twice that: one tensor is both operands of a product, another both addends of a sum.
struct Twice(usize);

impl Reference for Twice {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (n, x) = (self.0, &x[0]);
        let dot = |i: usize, j: usize| (0..n).fold(R::of(0.0), |sum, k| sum + x[i * n + k] * x[j * n + k]);
        let y: Vec<R> = (0..n * n).map(|at| dot(at / n, at % n)).collect();
        let doubled = y.iter().map(|&y| y + y).collect();
        vec![y, doubled]
    }
}

#[test]
fn an_operation_may_get_one_tensor_twice() {
    for n in [1, 5, 8] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let y = tape.apply(MatMul { layout: Layout::Nt, scale: 1.0 }, &[x[0], x[0]]);
            vec![y, tape.apply(Residual, &[y, y])]
        };
        let case = Case::new(format!("twice {n}"), &build).variable([1, 1, n, n], random(7, n * n));
        check(&case, &Twice(n), &[&["tiles"], &["rows"], &["rows4"]]);
    }
}

fn memory_of(record: impl Fn(&mut Recorder)) -> Memory {
    let mut rec = recorder();
    record(&mut rec);
    compile(rec).memory()
}

#[test]
fn a_chain_needs_two_buffers() {
    let chain = |steps: usize| {
        memory_of(move |rec| {
            let mut x = rec.pinned("x", [1024]);
            for _ in 0..steps {
                x = Gelu.forward(rec, &[x]).y[0];
            }
            rec.pin(x);
        })
    };
    let (short, long) = (chain(4), chain(40));
    assert_eq!(short.pinned, 2 * 4096, "{short:?}");
    assert_eq!(short.activations, 2 * 4096, "{short:?}");
    assert_eq!(long.activations, 2 * 4096, "{long:?}");
    assert_eq!(long.activations_unshared, 39 * 4096, "{long:?}");
}

/// A recording of sums of earlier tensors of several lengths, and what each must hold: whole numbers, exact in f32.
struct Sums {
    rec: Recorder,
    inputs: Vec<(Tensor, Vec<f32>)>,
    results: Vec<(Tensor, Vec<f32>)>,
}

impl Sums {
    fn random(seed: u32) -> Sums {
        let mut rec = recorder();
        let mut known: Vec<(Tensor, Vec<f32>)> = Vec::new();
        for (i, len) in [4, 4, 100, 100, 257, 257, 1000, 1000].into_iter().enumerate() {
            known.push((rec.pinned("input", [len]), vec![(i + 1) as f32; len]));
        }
        let inputs = known.clone();
        for step in 0..60 {
            let bits = philox([step, 0, 0, 0], [seed, 0]);
            // Mostly recent tensors, sometimes old ones: lives of many lengths.
            let reach = if bits[2].is_multiple_of(5) { known.len() } else { known.len().min(9) };
            let a = known[known.len() - 1 - bits[0] as usize % reach].clone();
            let same: Vec<_> = known.iter().filter(|k| k.0.len() == a.0.len() && k.0 != a.0).cloned().collect();
            let b = same[bits[1] as usize % same.len()].clone();
            // The sums would grow without bound and lose exactness: halve them.
            let sum: Vec<f32> = a.1.iter().zip(&b.1).map(|(a, b)| a + b).collect();
            let y = Residual.forward(&mut rec, &[a.0, b.0]).y[0];
            if sum[0] < 1e6 {
                known.push((y, sum));
            }
        }
        let results: Vec<_> = known.split_off(inputs.len()).into_iter().rev().step_by(7).collect();
        Sums { rec, inputs, results }
    }
}

/// If two tensors that live at the same time shared a buffer, some sum would be wrong.
#[test]
fn live_tensors_never_share_a_buffer() {
    let mut saved = 0;
    for seed in 0..40 {
        let Sums { mut rec, inputs, results } = Sums::random(seed);
        for (tensor, _) in &results {
            rec.pin(*tensor);
        }
        let plan = compile(rec);
        plan.poison();
        for (tensor, values) in &inputs {
            plan.write(*tensor, values).unwrap();
        }
        plan.run().steps().submit().expect("the sums run");
        for (at, (tensor, want)) in results.iter().enumerate() {
            let got = plan.read_blocking(*tensor).expect("results are pinned");
            assert_eq!(*want, got, "recording {seed}: result {at}");
        }
        let memory = plan.memory();
        assert!(memory.activations <= memory.activations_unshared, "{memory:?}");
        saved += memory.activations_unshared - memory.activations;
    }
    assert!(saved > 0, "no two tensors ever shared a buffer");
}

#[test]
fn what_the_adapter_cannot_hold_is_refused_with_the_numbers() {
    let refusal = |rec: Recorder| {
        let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter()));
        plan.err().expect("this is too large for any adapter").to_string()
    };
    let mut rec = recorder();
    let [x, y] = ["x", "y"].map(|label| rec.scratch(label, [1 << 15, 1 << 15]));
    let step = rec.step(&GELU, "forward").bind("x", x).bind("y", y).uint("quads", 1);
    step.flag("accumulate", false).dispatch([1, 1, 1]);
    let said = refusal(rec);
    let allowed = human_bytes(adapter().max_binding_bytes());
    let lower = "lower the batch size, the image size or the number of tokens";
    let wanted =
        |name| format!("{name} [32768, 32768] needs 4.0 GiB but the adapter allows {allowed} in one buffer; {lower}");
    assert!(said == wanted("x") || said == wanted("y"), "{said}");

    let mut rec = recorder();
    let [x, y] = ["x", "y"].map(|label| rec.scratch(label, [64]));
    let step = rec.step(&GELU, "forward").bind("x", x).bind("y", y).uint("quads", 1);
    step.flag("accumulate", false).dispatch([1, 1 << 30, 1]);
    let said = refusal(rec);
    assert!(said.starts_with("gelu.forward on [64] [64] needs [1, 1073741824, 1] workgroups"), "{said}");

    let mut rec = recorder();
    let x = rec.scratch("x", [64]);
    rec.step(&GELU, "forward").bind("x", x).uint("quads", 1 << 40).dispatch([1, 1, 1]);
    let said = refusal(rec);
    assert_eq!(
        said,
        "gelu.forward: `quads` needs 1099511627776 but the adapter allows 4294967295; lower the batch size or the sequence length"
    );
}

#[test]
fn bytes_are_told_for_humans() {
    for (bytes, told) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (3 << 19, "1.5 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (3 << 50, "3072.0 TiB"),
    ] {
        assert_eq!(human_bytes(bytes), told);
    }
}

/// A small model: linear, norm, attention, pooling, head, loss; its gradients and loss.
struct Model {
    plan: Plan,
    parameters: Parameters,
    loss: Tensor,
    dx: Tensor,
}

impl Model {
    fn new(mode: Mode) -> Model {
        let gpu = adapter();
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, &tune(&[]), mode);
        let [x, targets, seed] =
            [tape.variable("x", [4, 9, 6]), tape.input("targets", [4, 3]), tape.input("dloss", [1])];
        let init = Init::TruncNormal(0.5);
        let hidden = tape.scope("block", |tape| {
            let weight = tape.parameter("fc.weight", [8, 6], init);
            let h = tape.apply(Linear, &[x, weight]);
            let norm = [tape.parameter("norm.weight", [8], Init::Ones), tape.parameter("norm.bias", [8], Init::Zeros)];
            let h = tape.apply(LayerNorm { eps: 1e-6 }, &[h, norm[0], norm[1]]);
            let [q, k, v] = [0, 1, 2].map(|i| {
                let weight = tape.parameter(["q", "k", "v"][i], [8, 8], init);
                tape.apply(Linear, &[h, weight]).reshape([4, 1, 9, 8])
            });
            tape.apply_all(Attend::new(0.3), &[q, k, v])[0].reshape([4, 9, 8])
        });
        let pooled = tape.apply(TokenPooling { first: 0, count: 9 }, &[hidden]);
        let head = [tape.parameter("head.weight", [3, 8], init), tape.parameter("head.bias", [3], Init::Zeros)];
        let logits = tape.apply(Linear, &[pooled, head[0], head[1]]);
        let loss = tape.apply_all(CrossEntropy { smoothing: 0.1 }, &[logits, targets])[0];
        tape.backward(&[(loss, seed)]);
        let dx = tape.gradient(x).expect("x is a variable");
        [loss, dx].iter().for_each(|&t| tape.rec.pin(t));
        let rec = tape.finish().expect("the model is right");
        parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
        parameters.initialize(gpu, 7).unwrap();
        let plan = Plan::compile_blocking(gpu, rec, &parameters).expect("the model compiles");
        plan.poison();
        plan.write(x, &values(216, 1)).unwrap();
        plan.write(targets, &(0..4).flat_map(|row| [(row % 3) as f32, 0.0, 0.0]).collect::<Vec<_>>()).unwrap();
        plan.write(seed, &[1.0]).unwrap();
        Model { plan, parameters, loss, dx }
    }

    fn run(&self, clear: bool) -> Vec<Vec<f32>> {
        let run = self.plan.run().header(Header::default());
        let run = if clear { run.clear_gradients(&self.parameters) } else { run };
        run.steps().submit().expect("the model runs");
        let mut read =
            vec![self.loss, self.dx].into_iter().map(|t| self.plan.read_blocking(t)).collect::<Result<Vec<_>, _>>();
        let grads = pollster::block_on(self.parameters.read(adapter(), Role::Grad)).expect("gradients can be read");
        read.as_mut().map(|read| read.extend(grads)).expect("results can be read");
        read.unwrap_or_default()
    }
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn runs_and_compilations_give_the_same_bits() {
    let model = Model::new(Mode::Differentiate);
    let first = model.run(false);
    assert!(first.iter().flatten().all(|x| x.is_finite()) && first[0][0] > 0.5, "{first:?}");
    for _ in 0..2 {
        assert_eq!(bits(&first), bits(&model.run(false)), "a second run of one plan");
    }
    assert_eq!(bits(&first), bits(&Model::new(Mode::Differentiate).run(false)), "a second plan");
}

#[test]
fn listings_do_not_change() {
    let [one, two] = [0, 1].map(|_| Model::new(Mode::Differentiate).plan);
    assert_eq!(one.to_string(), two.to_string());
    let mut rec = recorder();
    rec.enter("mlp");
    let x = rec.pinned("x", [5, 3]);
    let y = Gelu.forward(&mut rec, &[x]).y[0];
    Residual.forward(&mut rec, &[x, y]);
    let listing = "   0 mlp/gelu.forward <1 1 1> mlp/x[5, 3] mlp/gelu[5, 3]\n   \
                   1 mlp/residual.forward <1 1 1> mlp/x[5, 3] mlp/gelu[5, 3] mlp/residual[5, 3]\n";
    assert_eq!(rec.to_string(), listing);
    assert!(compile(rec).to_string().starts_with(listing));
}

#[test]
fn accumulated_gradients_add_up_and_can_be_cleared() {
    let stored = Model::new(Mode::Differentiate).run(false);
    let model = Model::new(Mode::Train { accumulate: true });
    let once = model.run(true);
    assert_eq!(bits(&stored), bits(&once), "adding to cleared gradients is storing");
    let twice = model.run(false);
    for (once, twice) in once[2..].iter().zip(&twice[2..]) {
        let close = |(a, b): (&f32, &f32)| (2.0 * a - b).abs() <= 1e-6 * a.abs();
        assert!(once.iter().zip(twice).all(close), "{twice:?} is not twice {once:?}");
    }
    assert_eq!(bits(&once), bits(&model.run(true)), "cleared again");
}

#[test]
fn reading_what_is_not_pinned_is_an_error() {
    let mut rec = recorder();
    let x = rec.pinned("x", [4]);
    let unused = rec.scratch("unused", [4]);
    let y = Gelu.forward(&mut rec, &[x]).y[0];
    rec.pin(y);
    let error = compile(rec).read_blocking(unused).expect_err("nothing was bound to it").to_string();
    assert!(error.ends_with("has no buffer in this plan; pin it before compiling"), "{error}");
}

/// y = a + a2 and z = y + b, both with given gradients: that of z also reaches y, without touching what was given.
#[test]
fn an_output_that_is_read_again_keeps_its_given_gradient() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Differentiate);
    let [a, a2, b] = ["a", "a2", "b"].map(|label| tape.variable(label, [5]));
    let y = tape.apply(Residual, &[a, a2]);
    let z = tape.apply(Residual, &[y, b]);
    let [dy, dz] = ["dy", "dz"].map(|label| tape.input(label, [5]));
    tape.backward(&[(y, dy), (z, dz)]);
    let gradients = [a, a2, b].map(|x| tape.gradient(x).expect("every input is a variable"));
    gradients.iter().for_each(|&g| tape.rec.pin(g));
    let plan = compile(tape.finish().expect("sums can be recorded"));
    plan.poison();
    plan.write(dy, &[1.0; 5]).unwrap();
    plan.write(dz, &[2.0; 5]).unwrap();
    for run in 0..3 {
        plan.run().steps().submit().expect("sums run");
        for (gradient, want) in gradients.into_iter().zip([3.0, 3.0, 2.0]) {
            assert_eq!(plan.read_blocking(gradient).expect("gradients are pinned"), [want; 5], "run {run}");
        }
    }
}
