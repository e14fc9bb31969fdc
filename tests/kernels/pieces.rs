//! Dispatches that are cut, and sizes that one dispatch could not have.

use lara_runtime::attention::Attend;
use lara_runtime::ops::{LayerNorm, Layout, Product};
use lara_runtime::{Header, Mode, Parameters, Plan, Recorder, Tape, Tensor};
use lara_tests::{adapter, random, tune};

fn numbers(seed: u32, len: usize) -> Vec<f32> {
    random(seed, len).into_iter().map(|x| x as f32).collect()
}

/// What the tensors `read` hold after a run from poisoned buffers.
fn after_run(rec: Recorder, given: &[(Tensor, Vec<f32>)], read: &[Tensor]) -> Vec<Vec<f32>> {
    let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("it compiles");
    plan.poison();
    given.iter().for_each(|(tensor, values)| plan.write(*tensor, values).expect("it is pinned"));
    plan.run().header(Header::default()).steps().submit().expect("it runs");
    read.iter().map(|&t| plan.read_blocking(t).expect("it is pinned")).collect()
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect()
}

fn matmul_variants() -> Vec<&'static str> {
    let mut variants = vec!["tiles", "tiles_split", "rows", "rows4"];
    variants.extend(adapter().has_lanes().then_some("lanes"));
    variants
}

#[test]
fn a_product_in_pieces_has_the_same_bits() {
    for variant in matmul_variants() {
        for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
            for [batch, m, n, k] in [[3, 132, 68, 36], [5, 8, 4, 2052]] {
                let run = |most: f64| {
                    let mut rec = Recorder::new(tune(&[variant]).with_most_flops(most));
                    let [a, b] = [m * k, k * n].map(|len| rec.pinned("x", [batch, len]));
                    let c = rec.pinned("c", [batch, m * n]);
                    let product = Product { layout, batch, m, n, k, scale: 0.5, accumulate: false };
                    product.record(&mut rec, a, b, None, c);
                    let steps = rec.steps().len();
                    let longest = rec.steps().iter().map(|step| step.flops).fold(0.0, f64::max);
                    let given = [(a, numbers(1, a.len())), (b, numbers(2, b.len()))];
                    (steps, longest, bits(&after_run(rec, &given, &[c])))
                };
                let flops = (2 * batch * m * n * k) as f64;
                let [whole, cut] = [f64::INFINITY, flops / 9.0].map(run);
                let name = format!("{variant} {layout:?} {batch} {m} {n} {k}");
                assert!((whole.1 - flops).abs() < 1.0, "{name}: {} of {flops}", whole.1);
                assert!(cut.0 > whole.0, "{name}: {} steps", cut.0);
                assert!(whole.2 == cut.2, "{name}: other bits in {} steps", cut.0);
            }
        }
    }
}

#[test]
fn attention_in_pieces_has_the_same_bits() {
    for [heads, queries, keys, channels] in [[3, 130, 200, 8], [2, 70, 513, 5]] {
        let run = |most: f64| {
            let mut parameters = Parameters::new(adapter());
            let tune = tune(&["streamed"]).with_most_flops(most);
            let mut tape = Tape::new(&mut parameters, &tune, Mode::Differentiate);
            let q = tape.variable("q", [1, heads, queries, channels]);
            let [k, v] = ["k", "v"].map(|name| tape.variable(name, [1, heads, keys, channels]));
            let bias = tape.variable("bias", [1, heads, keys]);
            let y = tape.apply_all(Attend::new(0.5), &[q, k, v, bias]);
            let dy = tape.input("dy", y[0].shape());
            tape.backward(&[(y[0], dy)]);
            let mut read = y;
            read.extend([q, k, v, bias].map(|x| tape.gradient(x).expect("all are variables")));
            read.iter().for_each(|&t| tape.rec.pin(t));
            let rec = tape.finish().expect("it can be recorded");
            let given = [q, k, v, bias, dy].map(|t| (t, numbers(t.len() as u32, t.len())));
            (rec.steps().len(), bits(&after_run(rec, &given, &read)))
        };
        let [whole, cut] = [f64::INFINITY, 4e5].map(run);
        assert!(cut.0 > whole.0 + 4, "{} and {} steps", whole.0, cut.0);
        assert!(whole.1 == cut.1, "{heads} {queries} {keys} {channels}: other bits in {} steps", cut.0);
    }
}

/// More matrices than 65,535 workgroups in z. Variants for GPUs take seconds for as many tiles on a CPU; theirs are cut by the
/// same lines.
#[test]
fn batches_are_larger_than_a_dispatch() {
    let batch = 65_541;
    for variant in matmul_variants().into_iter().filter(|variant| !variant.starts_with("tiles")) {
        let mut rec = Recorder::new(tune(&[variant]));
        let (a, b, c) = (rec.pinned("a", [batch, 4]), rec.pinned("b", [batch, 16]), rec.pinned("c", [batch, 4]));
        let product = Product { layout: Layout::Nn, batch, m: 1, n: 4, k: 4, scale: 1.0, accumulate: false };
        product.record(&mut rec, a, b, None, c);
        assert!(rec.steps().len() > 1, "{variant}: it was not cut");
        let values: Vec<f32> = (0..batch * 4).map(|i| (i % 1021) as f32).collect();
        let given = [(a, values.clone()), (b, (0..batch * 16).map(|i| f32::from(u8::from(i % 16 % 5 == 0))).collect())];
        let got = after_run(rec, &given, &[c]).remove(0);
        assert!(got == values, "{variant}: a times the identity is not a");
    }
}

/// More rows than 65,535 workgroups of 32 or 64 hold.
#[test]
fn products_take_millions_of_rows() {
    for (variant, m) in matmul_variants().into_iter().map(|v| (v, if v == "lanes" { 2_097_200 } else { 4_194_400 })) {
        let mut rec = Recorder::new(tune(&[variant]));
        let (a, b, c) = (rec.pinned("a", [m, 4]), rec.pinned("b", [4, 4]), rec.pinned("c", [m, 4]));
        let product = Product { layout: Layout::Nn, batch: 1, m, n: 4, k: 4, scale: 1.0, accumulate: false };
        product.record(&mut rec, a, b, None, c);
        let values: Vec<f32> = (0..m * 4).map(|i| (i % 1021) as f32).collect();
        let given = [(a, values.clone()), (b, (0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect())];
        let got = after_run(rec, &given, &[c]).remove(0);
        assert!(got == values, "{variant}: a times the identity is not a");
    }
}

#[test]
fn layer_norm_takes_millions_of_rows_and_so_do_its_parameters() {
    let rows = 4_194_400;
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&["forward_rows"]), Mode::Differentiate);
    let x = tape.variable("x", [rows, 2]);
    let [gain, bias] = ["gain", "bias"].map(|name| tape.variable(name, [2]));
    let y = tape.apply(LayerNorm { eps: 0.0 }, &[x, gain, bias]);
    let dy = tape.input("dy", y.shape());
    tape.backward(&[(y, dy)]);
    let read = [gain, bias].map(|x| tape.gradient(x).expect("it is a variable"));
    read.iter().for_each(|&t| tape.rec.pin(t));
    let rec = tape.finish().expect("it can be recorded");
    // Rows of 3 and 5: normalised to -1 and 1.
    let given = [
        (x, (0..2 * rows).map(|i| [3.0, 5.0][i % 2]).collect()),
        (gain, vec![1.0; 2]),
        (bias, vec![0.0; 2]),
        (dy, (0..2 * rows).map(|i| [0.5, 0.25][i % 2]).collect()),
    ];
    let got = after_run(rec, &given, &read);
    let want = [[-0.5, 0.25], [0.5, 0.25]].map(|row| row.map(|x| x * rows as f64));
    for (got, want) in got.iter().flatten().zip(want.into_iter().flatten()) {
        assert!((f64::from(*got) / want - 1.0).abs() < 1e-5, "{got}, not {want}");
    }
}
