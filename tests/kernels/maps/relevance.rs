use lara_runtime::attention::{Attention, Context, Qkv, Softmax};
use lara_runtime::maps::relevance;
use lara_runtime::{Mode, Parameters, Plan, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, tune};

use super::refusal;

/// max(0, x)
fn cut<R: Real>(x: R) -> R {
    if x.value() > 0.0 { x } else { R::of(0.0) }
}

struct Relevance {
    heads: usize,
    keys: usize,
    channels: usize,
}

impl Reference for Relevance {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let rows = x[0].chunks(self.channels).zip(x[1].chunks(self.channels));
        let sum = |(v, dv): (&[R], &[R])| v.iter().zip(dv).fold(R::of(0.0), |sum, (&v, &dv)| sum + v * dv);
        let sums: Vec<R> = rows.map(sum).collect();
        let over_heads = |m: usize| (0..self.heads).fold(R::of(0.0), |sum, h| sum + sums[h * self.keys + m]);
        let means = (0..self.keys).map(|m| over_heads(m) / R::of(self.heads as f64));
        vec![sums.iter().copied().chain(means).map(cut).collect()]
    }
}

#[test]
fn sums_values_times_gradients() {
    for shape @ [_, heads, keys, channels] in
        [[1, 1, 1, 1], [1, 3, 1, 5], [1, 2, 7, 1], [1, 3, 63, 8], [1, 2, 64, 17], [1, 12, 65, 64], [1, 1, 1021, 3]]
    {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![relevance(&mut tape.rec, x[0], x[1])];
        let case = Case::new(format!("relevance {shape:?}"), &build).tolerance(2e-6);
        let [v, dv] = [1, 2].map(|seed| random(seed, heads * keys * channels));
        check(&case.constant(shape, v).constant(shape, dv), &Relevance { heads, keys, channels }, &[&[]]);
    }
}

/// What it claims to be: the sum over the queries of A dA with dA = dout v^T, from the explicit matrix in float64.
#[test]
fn is_attention_weighted_with_its_gradient() {
    let (heads, tokens, dim) = (2, 13, 5);
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Differentiate);
    let [q, k, dout] = ["q", "k", "dout"].map(|label| tape.input(label, [1, heads, tokens, dim]));
    let v = tape.variable("v", [1, heads, tokens, dim]);
    let qkv = Qkv { q, k, v };
    let out = Softmax::default().attend(&mut tape, qkv, &Context::default());
    tape.backward(&[(out, dout)]);
    let dv = tape.gradient(v).expect("an output depends on its values");
    let relevant = relevance(&mut tape.rec, v, dv);
    let weights = Softmax::default().weights(&mut tape, qkv, &Context::default());
    [relevant, weights].into_iter().for_each(|t| tape.rec.pin(t));
    let rec = tape.finish().expect("this fits");
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("this compiles");
    plan.poison();
    let numbers = [1, 2, 3, 4].map(|seed| random(seed, heads * tokens * dim));
    for (tensor, values) in [q, k, v, dout].into_iter().zip(&numbers) {
        plan.write(tensor, &values.iter().map(|&x| x as f32).collect::<Vec<f32>>()).unwrap();
    }
    plan.run().steps().submit().expect("this runs");
    let [got, a] = [relevant, weights].map(|t| plan.read_blocking(t).expect("a pinned tensor"));
    let (v, dout) = (&numbers[2], &numbers[3]);
    let row = |x: &[f64], head: usize, at: usize| x[(head * tokens + at) * dim..][..dim].to_vec();
    let sum = |head: usize, m: usize| {
        let terms = (0..tokens).map(|n| {
            let da: f64 = row(dout, head, n).iter().zip(row(v, head, m)).map(|(g, v)| g * v).sum();
            f64::from(a[(head * tokens + n) * tokens + m]) * da
        });
        terms.sum::<f64>()
    };
    let each = (0..heads * tokens).map(|i| sum(i / tokens, i % tokens));
    let means = (0..tokens).map(|m| (0..heads).map(|head| sum(head, m)).sum::<f64>() / heads as f64);
    let want: Vec<f64> = each.chain(means).map(cut).collect();
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    assert_close("gradient-weighted attention", &want, &got, 1e-5);
}

#[test]
fn refuses_a_gradient_of_another_shape() {
    for (v, dv) in [([1, 2, 5, 4], [1, 2, 4, 5]), ([2, 2, 5, 4], [2, 2, 5, 4])] {
        let said = refusal(|tape| {
            let [v, dv] = [v, dv].map(|shape| tape.input("x", shape));
            relevance(&mut tape.rec, v, dv);
        });
        let want = format!(
            "no relevance of values {v:?} with a gradient {dv:?}; both are [1, heads, M, D], of the same shape"
        );
        assert_eq!(said, want);
    }
}
