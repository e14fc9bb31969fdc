use lara_runtime::attention::{AttentionConfig, Context, MechanismKind, Padding, Qkv, SampleScheme, mechanism};
use lara_runtime::{Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, run, tune};

use super::attend::{Sizes, VARIANTS};

/// One way to use RFA, and its reference. Inputs: q, k, v, projection [heads, features, d] and, if `masked`, the mask.
#[derive(Clone, Debug)]
struct Rfa {
    sizes: Sizes,
    features: usize,
    masked: Masked,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Masked {
    Nothing,
    /// Every third key, and all keys of the last sample.
    Some,
}

impl Rfa {
    fn new(sizes: [usize; 5], features: usize) -> Rfa {
        Rfa { sizes: Sizes::new(sizes), features, masked: Masked::Nothing }
    }

    fn projection(&self) -> Vec<f64> {
        let Sizes { heads, d, .. } = self.sizes;
        random(7, heads * self.features * d).into_iter().map(|x| f64::from((1.5 * x) as f32)).collect()
    }

    /// [batch, M]
    fn mask(&self) -> Vec<f64> {
        let Sizes { batch, m, .. } = self.sizes;
        let hides = |i: usize| i % m % 3 == 1 || (batch > 1 && i / m == batch - 1);
        (0..batch * m).map(|i| f64::from(u8::from(hides(i)))).collect()
    }

    fn case<'a>(&self, build: lara_tests::Build<'a>) -> Case<'a> {
        let Sizes { batch, heads, m, d, .. } = self.sizes;
        let case = self.sizes.case("rfa", 1.5, build).variable([heads, self.features, d], self.projection());
        let case = case.tolerance(2e-5);
        if self.masked == Masked::Nothing { case } else { case.constant([batch, m], self.mask()) }
    }

    fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Tensor {
        mechanism(&config()).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &context(x))
    }
}

fn config() -> AttentionConfig {
    // What `exact` means is in padding.rs: the same without the padded tokens.
    let padding = Padding::Released;
    AttentionConfig { mechanism: MechanismKind::Rfa, features: 5, padding, ..AttentionConfig::default() }
}

fn context(x: &[Tensor]) -> Context {
    Context { projection: Some(x[3]), key_padding_mask: x.get(4).copied(), ..Context::default() }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b)
}

/// log xi(x d^(-1/4), w) = d^(-1/4) x.w - |x|^2 d^(-1/2) / 2, in the paper's units.
fn log_feature<R: Real>(x: &[R], w: &[R]) -> R {
    let d = x.len() as f64;
    R::of(d.powf(-0.25)) * dot(x, w) - R::of(0.5 * d.powf(-0.5)) * dot(x, x)
}

impl Reference for Rfa {
    /// The ratio of spec 1.2, with exponents shifted by their largest.
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Sizes { batch, heads, n, m, d } = self.sizes;
        let mut out = Vec::new();
        for (at, q) in x[0].chunks(d).enumerate() {
            let z = at / n;
            let keys = (0..m).filter(|key| x.get(4).is_none_or(|mask| mask[z / heads * m + key].value() == 0.0));
            let keys: Vec<usize> = keys.collect();
            let of = |from: &Vec<R>, row: usize| from[row * d..(row + 1) * d].to_vec();
            let mut logits = Vec::new();
            for s in 0..self.features {
                let w = of(&x[3], z % heads * self.features + s);
                let query = log_feature(q, &w);
                logits.extend(keys.iter().map(|&key| (key, query + log_feature(&of(&x[1], z * m + key), &w))));
            }
            let largest = logits.iter().map(|(_, l)| l.value()).fold(f64::NEG_INFINITY, f64::max);
            let (mut sums, mut total) = (vec![R::of(0.0); d], R::of(0.0));
            for (key, logit) in logits {
                let weight = (logit - R::of(largest)).exp();
                total += weight;
                sums.iter_mut().zip(of(&x[2], z * m + key)).for_each(|(sum, v)| *sum += weight * v);
            }
            let empty = keys.is_empty();
            out.extend(sums.into_iter().map(|sum| if empty { R::of(0.0) } else { sum / total }));
        }
        assert_eq!(out.len(), batch * heads * n * d);
        vec![out]
    }
}

/// One token and one feature (with more features its zero gradients would be rounding alone), odd dimensions, more queries
/// than keys and the other way round.
fn cases() -> Vec<Rfa> {
    let sizes = [
        ([1, 1, 1, 1, 1], 1),
        ([2, 3, 1, 1, 3], 1),
        ([2, 3, 1, 3, 3], 4),
        ([2, 2, 5, 7, 3], 1),
        ([1, 2, 16, 16, 8], 5),
        ([3, 1, 33, 18, 5], 20),
        ([2, 2, 4, 65, 4], 7),
        ([1, 1, 129, 67, 16], 64),
    ];
    sizes.map(|(sizes, features)| Rfa::new(sizes, features)).to_vec()
}

#[test]
fn matches_the_ratio_of_features() {
    for rfa in cases() {
        for masked in [Masked::Nothing, Masked::Some] {
            let rfa = Rfa { masked, ..rfa.clone() };
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![rfa.record(tape, x)];
            check(&rfa.case(&build), &rfa, VARIANTS);
        }
    }
}

/// As in LARA's test: the first half of every key and feature is the same large number, the second in quarters, so that their logits
/// of 1e4 are exact in f32. With their log-sum-exp in f32 as the key term outputs would be off by 5e-4.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    let rfa = Rfa::new([1, 2, 9, 12, 16], 5);
    let rows = |seed, len: usize, first_half: f64| -> Vec<f64> {
        let quarters = random(seed, len).into_iter().map(|x| (4.0 * x).round() / 4.0);
        quarters.enumerate().map(|(i, x)| if i % 16 < 8 { first_half } else { x }).collect()
    };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![rfa.record(tape, x)];
    let mut case = rfa.case(&build).tolerance(1e-5);
    for (input, count, first_half) in [(0, 9, 0.0), (1, 12, 64.0), (3, 5, 64.0)] {
        case.set(input, rows(input as u32, 2 * count * 16, first_half));
    }
    check(&case, &rfa, VARIANTS);
}

#[test]
fn outputs_lie_in_the_convex_hull_of_the_values() {
    for rfa in cases() {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![rfa.record(tape, x)];
        let case = rfa.case(&build).mode(Mode::Eval);
        let (v, out) = (&case.values()[2], run(&case, &[], 1).outputs.remove(0));
        let Sizes { n, m, d, .. } = rfa.sizes;
        for (at, &y) in out.iter().enumerate() {
            let column = (0..m).map(|key| v[(at / d / n * m + key) * d + at % d]);
            let (least, most) = column.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
            assert!(least - 1e-5 <= y && y <= most + 1e-5, "{rfa:?}: output[{at}] = {y} is not in {least} ..= {most}");
        }
    }
}

#[test]
fn constant_values_come_out_unchanged_and_fully_masked_samples_give_nothing() {
    for rfa in cases() {
        for masked in [Masked::Nothing, Masked::Some] {
            let rfa = Rfa { masked, ..rfa.clone() };
            let Sizes { batch, heads, n, m, d } = rfa.sizes;
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![rfa.record(tape, x)];
            let mut case = rfa.case(&build).mode(Mode::Eval);
            let channels = random(99, d);
            case.set(2, (0..batch * heads * m * d).map(|i| channels[i % d]).collect());
            let empty = |z: usize| masked == Masked::Some && (0..m).all(|key| rfa.mask()[z / heads * m + key] == 1.0);
            let want = (0..batch * heads * n * d).map(|i| if empty(i / d / n) { 0.0 } else { channels[i % d] });
            assert_close(&format!("{rfa:?}"), &want.collect::<Vec<f64>>(), &run(&case, &[], 1).outputs[0], 1e-5);
        }
    }
}

#[test]
fn weights_give_the_output() {
    for rfa in cases() {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
            let attention = mechanism(&config()).unwrap();
            vec![attention.attend(tape, qkv, &context(x)), attention.weights(tape, qkv, &context(x))]
        };
        let case = Rfa { masked: Masked::Some, ..rfa.clone() }.case(&build).mode(Mode::Eval);
        let (outputs, v) = (run(&case, &[], 1).outputs, case.values()[2].clone());
        let Sizes { n, m, d, .. } = rfa.sizes;
        let mut product = Vec::new();
        for (row, weights) in outputs[1].chunks(m).enumerate() {
            assert!(weights.iter().all(|&w| w >= 0.0), "{rfa:?}: negative weight in row {row}");
            let values = &v[row / n * m * d..];
            product.extend((0..d).map(|c| (0..m).map(|key| weights[key] * values[key * d + c]).sum::<f64>()));
        }
        assert_close(&format!("{rfa:?}: weights times values"), &outputs[0], &product, 1e-5);
    }
}

/// A learned projection is a parameter and gets its gradient.
#[test]
fn learns_its_projection() {
    let rfa = Rfa::new([2, 2, 9, 9, 4], 6);
    let config = AttentionConfig { features: 6, sample_scheme: SampleScheme::Learnable, ..config() };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        vec![mechanism(&config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
    };
    let case = rfa.sizes.case("rfa with a learned projection", 1.5, &build).tolerance(2e-5);
    check(&case.parameter("projection", [2, 6, 4], rfa.projection()), &rfa, VARIANTS);
}

/// More features approach softmax attention: with small q and k, 4,096 features leave little of the error of 16.
#[test]
fn approaches_softmax_attention() {
    let sizes = Sizes::new([1, 2, 12, 12, 8]);
    let error = |features: usize| {
        let config = AttentionConfig { features, ..config() };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            vec![mechanism(&config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
        };
        let case = sizes.case("rfa against softmax", 1.0, &build).mode(Mode::Eval);
        let (exact, got) = (sizes.exact().eval(&case.values()).remove(0), run(&case, &[], 1).outputs.remove(0));
        exact.iter().zip(&got).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / got.len() as f64
    };
    let (few, many) = (error(16), error(4096));
    assert!(many < few / 20.0 && many < 1e-4, "mean squared error {few} with 16 features, {many} with 4,096");
}

/// Bytes between forward and backward for 2 heads of dimension 16 and 64 features.
fn activation_bytes(preferred: &[&str], tokens: usize) -> u64 {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Train { accumulate: false });
    let config = AttentionConfig { mechanism: MechanismKind::Rfa, ..AttentionConfig::default() };
    let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|label| tape.variable(label, [1, 2, tokens, 16]));
    let out = mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &Context::default());
    tape.backward(&[(out, dout)]);
    let rec = tape.finish().expect("attention can be recorded");
    parameters.allocate_blocking(adapter(), &[Role::Weight, Role::Grad]).unwrap();
    Plan::compile_blocking(adapter(), rec, &parameters).expect("attention compiles").memory().activations
}

#[test]
fn memory_grows_linearly_with_the_tokens() {
    for preferred in VARIANTS {
        let [few, many] = [4096, 16384].map(|tokens| activation_bytes(preferred, tokens));
        assert!(many <= 4 * few + (1 << 20), "{preferred:?}: {few} bytes for 4,096 tokens and {many} for 16,384");
    }
    let (streamed, matrix) = (activation_bytes(VARIANTS[0], 16384), 2 * 16384 * 64 * 4);
    assert!(streamed < matrix / 2, "{streamed} bytes: is there a matrix of N x S, {matrix} bytes?");
}
