use lara_runtime::attention::Attend;
use lara_runtime::{Mode, Parameters, Plan, Tape, Tensor};
use lara_tests::{Case, Dual, Outcome, Real, Reference, adapter, assert_close, check, cotangent, random, run, tune};

use super::attend::{Exact, Sizes, VARIANTS};

#[test]
fn gradients_flow_through_the_output_the_lse_or_both() {
    for shape in [[1, 1, 1, 1, 1], [2, 3, 5, 7, 4], [1, 2, 65, 33, 3], [1, 1, 8, 129, 5]] {
        let sizes = Sizes::new(shape);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        for seeded in [&[0][..], &[1], &[0, 1]] {
            let case = sizes.case(&format!("softmax, gradients of {seeded:?}"), 2.0, &build).gradients_of(seeded);
            check(&case, &sizes.exact(), VARIANTS);
        }
    }
}

#[test]
fn a_key_bias_is_added_and_has_a_gradient() {
    for shape @ [batch, heads, _, m, _] in
        [[1, 1, 3, 1, 2], [2, 3, 9, 17, 4], [1, 2, 64, 65, 3], [3, 1, 7, 130, 8], [2, 3, 9, 20, 4]]
    {
        let sizes = Sizes::new(shape);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        for seeded in [&[0][..], &[1], &[0, 1]] {
            let bias = random(4, batch * heads * m).into_iter().map(|b| 3.0 * b).collect();
            let case = sizes.case(&format!("softmax with a key bias, gradients of {seeded:?}"), 2.0, &build);
            let case = case.variable([batch, heads, m], bias).gradients_of(seeded);
            check(&case, &sizes.exact(), VARIANTS);
        }
    }
}

/// The output without the log-sum-exp.
struct First(Exact);

impl Reference for First {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![self.0.eval(x).swap_remove(0)]
    }
}

/// Every third key is masked, and in the second matrix every key, by different numbers that all count as masked.
fn masks(matrices: usize, m: usize) -> Vec<f64> {
    let bias = random(4, matrices * m).into_iter().enumerate();
    bias.map(|(i, b)| match i / m {
        1 => [-1e30, -5e29, -2e29][i % 3],
        _ if i % 3 == 1 => -1e30,
        _ => b,
    })
    .collect()
}

#[test]
fn masked_keys_are_not_seen() {
    for m in [1, 2, 4, 65, 130, 132] {
        let sizes = Sizes::new([3, 1, 9, m, 4]);
        // The log-sum-exp of a matrix without keys is a sentinel of 1e30 beside which nothing else shows: see below.
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply_all(Attend::new(sizes.scale()), x)[0]];
        let case = sizes.case("softmax with masked keys", 2.0, &build).variable([3, 1, m], masks(3, m));
        check(&case, &First(sizes.exact()), VARIANTS);
    }
}

#[test]
fn a_query_that_sees_no_key_gets_zeros_and_the_sentinel() {
    let sizes = Sizes::new([3, 1, 9, 72, 4]);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
    let case = sizes.case("no key", 2.0, &build).variable([3, 1, 72], masks(3, 72));
    for preferred in VARIANTS {
        let result = run(&case, preferred, 1);
        assert_eq!(result.outputs[0][36..72], [0.0; 36], "{preferred:?}: output");
        assert_eq!(result.outputs[1][9..18], [f64::from(-1e30_f32); 9], "{preferred:?}: log-sum-exp");
        assert!(result.outputs[1][..9].iter().all(|&lse| lse.abs() < 20.0), "{preferred:?}: {:?}", result.outputs[1]);
        for (name, gradient, width) in [("queries", 0, 36), ("keys", 1, 288), ("values", 2, 288), ("key bias", 3, 72)] {
            let own = &result.gradients[gradient][width..2 * width];
            assert!(own.iter().all(|&g| g == 0.0), "{preferred:?}: gradient of the {name}: {own:?}");
            assert!(result.gradients[gradient].iter().all(|g| g.is_finite()), "{preferred:?}: gradient of the {name}");
        }
    }
}

/// Whole numbers and a scale of a power of 2, so that even large logits are exact in f32.
#[test]
fn logits_of_ten_thousand_stay_finite() {
    let sizes = Sizes::new([2, 2, 17, 67, 16]);
    let whole = |seed, len| -> Vec<f64> { random(seed, len).into_iter().map(|x| (100.0 * x).round()).collect() };
    let x = [whole(1, 4 * 17 * 16), whole(2, 4 * 67 * 16), random(3, 4 * 67 * 16)];
    let largest = sizes.exact().eval(&x)[1].iter().copied().fold(0.0, f64::max);
    assert!(largest > 1e4, "the largest logit is only {largest}");
    let mut case = Case::new("softmax of logits beyond 1e4", &|tape, x| tape.apply_all(Attend::new(0.25), x));
    for (values, len) in x.into_iter().zip([17, 67, 67]) {
        case = case.variable([2, 2, len, 16], values);
    }
    check(&case.tolerance(1e-5), &sizes.exact(), VARIANTS);
}

/// Logits near 1e4 that differ by little, exact in f32: a probability worked out of a log-sum-exp of 1e4 would be off by 5e-4.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    let eighths = |seed, len| -> Vec<f64> { random(seed, len).into_iter().map(|x| (16.0 * x).round() / 8.0).collect() };
    // Few rows against many columns are split by the streaming kernel, in the forward or in the backward pass.
    for shape @ [batch, heads, n, m, d] in [[2, 2, 17, 68, 16], [1, 1, 7, 776, 4], [1, 2, 600, 5, 3]] {
        let sizes = Exact { queries: n, keys: m, dim: d, scale: 0.25 };
        for seeded in [&[0][..], &[1], &[0, 1]] {
            let bias = eighths(4, batch * heads * m).into_iter().map(|b| 1e4 + b).collect();
            let case = Case::new(format!("softmax near 1e4 {shape:?}, gradients of {seeded:?}"), &|tape, x| {
                tape.apply_all(Attend::new(0.25), x)
            });
            let case = case
                .variable([batch, heads, n, d], eighths(1, batch * heads * n * d))
                .variable([batch, heads, m, d], eighths(2, batch * heads * m * d))
                .variable([batch, heads, m, d], random(3, batch * heads * m * d))
                .variable([batch, heads, m], bias);
            check(&case.gradients_of(seeded).tolerance(1e-5), &sizes, VARIANTS);
        }
    }
}

/// One row of attention with one channel, from the log-sum-exp that the GPU found.
struct Row<'a> {
    result: &'a Outcome,
    x: &'a [Vec<f64>; 4],
    sizes: Sizes,
}

impl Row<'_> {
    /// Gradients of a key, a value and a key bias: sums over all queries.
    fn key_gradients(&self, z: usize, m: usize) -> [f64; 3] {
        let (queries, at) = (z * self.sizes.n..(z + 1) * self.sizes.n, z * self.sizes.m + m);
        let (dout, dlse) = (cotangent(0, self.x[0].len()), cotangent(1, self.x[0].len()));
        let mut sums = [0.0; 3];
        for n in queries {
            let p = (self.x[0][n] * self.x[1][at] + self.x[3][at] - self.result.outputs[1][n]).exp();
            let ds = p * (dout[n] * (self.x[2][at] - self.result.outputs[0][n]) + dlse[n]);
            for (sum, term) in sums.iter_mut().zip([ds * self.x[0][n], p * dout[n], ds]) {
                *sum += term;
            }
        }
        sums
    }

    /// Output, log-sum-exp and gradient of a query.
    fn query(&self, z: usize, n: usize) -> [f64; 3] {
        let (at, keys) = (z * self.sizes.n + n, z * self.sizes.m..(z + 1) * self.sizes.m);
        let constant = |x: &[f64]| x.iter().map(|&x| Dual(x, 0.0)).collect::<Vec<_>>();
        let [k, v, bias] = [1, 2, 3].map(|i| constant(&self.x[i][keys.clone()]));
        let exact = Exact { queries: 1, keys: self.sizes.m, dim: 1, scale: 1.0 };
        let y = exact.eval(&[vec![Dual(self.x[0][at], 1.0)], k, v, bias]);
        let (dout, dlse) = (cotangent(0, self.x[0].len())[at], cotangent(1, self.x[0].len())[at]);
        [y[0][0].0, y[1][0].0, dout * y[0][0].1 + dlse * y[1][0].1]
    }
}

/// More logits than fit a slab (4 Mi): slabs of some matrices, and slabs of some rows of each matrix. The reference
/// looks at some queries and keys only.
#[test]
fn slabs_find_their_places() {
    for (sizes, places) in [
        (Sizes::new([17, 1, 512, 512, 1]), [(0, 0), (15, 511), (16, 0), (16, 511)]),
        (Sizes::new([2, 1, 1030, 4100, 1]), [(0, 1022), (0, 1029), (1, 0), (1, 1023)]),
    ] {
        let Sizes { batch, n: queries, m: keys, .. } = sizes;
        let x = [(1, queries), (2, keys), (3, keys), (4, keys)].map(|(seed, len)| random(seed, batch * len));
        let mut case = Case::new(format!("slabs {sizes:?}"), &|tape, x| tape.apply_all(Attend::new(1.0), x));
        for (values, len) in x.iter().zip([queries, keys, keys, keys]) {
            case = case.variable([batch, 1, len, 1], values.clone());
        }
        let result = run(&case, &["slabs", "forward_rows"], 1);
        let row = Row { result: &result, x: &x, sizes };
        let gradients = &result.gradients;
        for (z, n) in places {
            let at = z * queries + n;
            let got = [result.outputs[0][at], result.outputs[1][at], gradients[0][at]];
            assert_close(&format!("{sizes:?} matrix {z}: query {n}"), &row.query(z, n), &got, 1e-5);
            let at = z * keys + n;
            let got = [gradients[1][at], gradients[2][at], gradients[3][at]];
            assert_close(&format!("{sizes:?} matrix {z}: key {n}"), &row.key_gradients(z, n), &got, 1e-4);
        }
    }
}

/// What divides the rows of the output finds them in every slab, too. One channel is no vec4, hence no row by row reference.
#[test]
fn slabs_divided_at_the_end_are_those_divided_at_once() {
    for shape @ [batch, _, _, keys, _] in [[17, 1, 512, 512, 4], [2, 1, 1030, 4100, 4]] {
        let sizes = Sizes::new(shape);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        let case =
            sizes.case("slabs", 2.0, &build).mode(Mode::Eval).constant([batch, 1, keys], random(4, batch * keys));
        let [at_once, at_the_end] = ["forward_rows", "forward_rows4"].map(|entry| run(&case, &["slabs", entry], 1));
        for (want, got) in at_once.outputs.iter().zip(&at_the_end.outputs) {
            assert_close(&format!("{sizes:?}"), want, got, 1e-5);
        }
    }
}

/// Key m is visible to query n when m <= n + M - N: a query before all keys gets zeros.
#[test]
fn causal_attention_hides_later_keys() {
    struct Causal(super::attend::Exact);
    impl Reference for Causal {
        fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
            let exact = &self.0;
            let (n, m, d) = (exact.queries, exact.keys, exact.dim);
            let (mut out, mut lse) = (Vec::new(), Vec::new());
            for (row, q) in x[0].chunks(d).enumerate() {
                let (z, query) = (row / n, row % n);
                let bias = (0..m).map(|key| R::of(if key + n <= query + m { 0.0 } else { -1e30 })).collect();
                let of = |x: &Vec<R>| x[z * m * d..(z + 1) * m * d].to_vec();
                let one = super::attend::Exact { queries: 1, keys: m, dim: d, scale: exact.scale };
                let y = one.eval(&[q.to_vec(), of(&x[1]), of(&x[2]), bias]);
                out.extend(&y[0]);
                lse.extend(&y[1]);
            }
            vec![out, lse]
        }
    }
    for shape in [
        [1, 1, 1, 1, 4],
        [2, 2, 9, 9, 5],
        [1, 2, 65, 130, 8],
        [1, 1, 12, 7, 4],
        [1, 1, 70, 64, 3],
        [2, 1, 70, 64, 4],
        [1, 2, 65, 132, 8],
    ] {
        let sizes = super::attend::Sizes::new(shape);
        let build =
            |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend { scale: sizes.scale(), causal: true }, x);
        check(&sizes.case("causal", 2.0, &build), &Causal(sizes.exact()), super::attend::VARIANTS);
    }
}

#[test]
fn causal_is_refused_by_mechanisms_that_have_no_such_form() {
    use lara_runtime::attention::{AttentionConfig, Context, MechanismKind, Qkv, mechanism};
    use lara_runtime::{Mode, Parameters, Tape, Tune};
    for kind in MechanismKind::ALL {
        let config = AttentionConfig { mechanism: kind, ..AttentionConfig::default() };
        let mut parameters = Parameters::new(lara_tests::adapter());
        let mut tape = Tape::new(&mut parameters, &Tune::fixed(&[]), Mode::Eval);
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.input(name, [1, 1, 49, 8]));
        let context = Context { causal: true, ..Context::default() };
        mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &context);
        match tape.finish() {
            Ok(_) => assert_eq!(kind, MechanismKind::Softmax),
            Err(error) => assert_eq!(
                error.to_string(),
                format!(
                    "attention is causal here, but {} has no causal form; of the mechanisms only softmax has one",
                    kind.name()
                )
            ),
        }
    }
    for mechanism in MechanismKind::ALL {
        let config = AttentionConfig { mechanism, causal: true, ..AttentionConfig::default() };
        match config.check() {
            Ok(()) => assert_eq!(mechanism, MechanismKind::Softmax),
            Err(error) => assert_eq!(
                error.to_string(),
                format!(
                    "causal is true, but {} has no causal form; of the mechanisms only softmax has one",
                    mechanism.name()
                )
            ),
        }
    }
}

#[test]
fn gives_the_golden_values() {
    assert_eq!(lara_tests::check_golden("softmax"), 1);
}

/// Recording is bounded, whatever the sizes: slabs where they are some hundred, else the streaming kernel.
#[test]
fn a_million_queries_and_keys_are_recorded_at_once() {
    let variants: &[&str] = if adapter().has_lanes() { &["slabs", "lanes"] } else { &["slabs", "rows4"] };
    for (tokens, slabs) in [(65_536, true), (1 << 20, false)] {
        let start = std::time::Instant::now();
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(variants), Mode::Differentiate);
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.variable(name, [1, 1, tokens, 16]));
        let y = tape.apply_all(Attend::new(0.25), &[q, k, v])[0];
        let dy = tape.input("dy", y.shape());
        tape.backward(&[(y, dy)]);
        let rec = tape.finish().expect("it can be recorded");
        let steps = rec.steps().len();
        assert!(steps < 10_000, "{tokens} tokens: {steps} steps");
        let has = |entry: &str| rec.steps().iter().filter(|step| step.label.ends_with(entry)).count();
        assert_eq!(has("softmax.backward") > 0, slabs, "{tokens} tokens");
        assert!(has("transpose_b") <= 3, "keys are copied {} times", has("transpose_b"));
        if slabs {
            let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("it compiles");
            assert!(plan.memory().activations < 256 << 20, "{:?}", plan.memory());
        }
        assert!(start.elapsed().as_secs() < 20, "{tokens} tokens: {:?}", start.elapsed());
    }
}
