use lara_runtime::attention::{JoinHeads, SplitHeads};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

/// batch, tokens, parts, heads, dim
type Sizes = [usize; 5];

/// The elements of part `part` as [batch, heads, tokens, dim].
fn split<R: Real>([batch, tokens, parts, heads, dim]: Sizes, part: usize, x: &[R]) -> Vec<R> {
    let mut y = Vec::new();
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for n in 0..tokens {
            let at = (((b * tokens + n) * parts + part) * heads + h) * dim;
            y.extend_from_slice(&x[at..at + dim]);
        }
    }
    y
}

struct Split(Sizes);

impl Reference for Split {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        (0..self.0[2]).map(|part| split(self.0, part, &x[0])).collect()
    }
}

/// The inverse of a split into one part, by searching where each element went.
struct Join(Sizes);

impl Reference for Join {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let places: Vec<f64> = (0..x[0].len()).map(|i| i as f64).collect();
        let mut y = x[0].clone();
        for (from, to) in split(self.0, 0, &places).into_iter().enumerate() {
            y[to as usize] = x[0][from];
        }
        vec![y]
    }
}

const SIZES: [Sizes; 9] = [
    [2, 33, 3, 2, 4],
    [2, 9, 2, 3, 12],
    [1, 1, 3, 1, 1],
    [2, 5, 3, 3, 7],
    [1, 17, 3, 2, 64],
    [3, 64, 3, 1, 5],
    [2, 65, 3, 4, 3],
    [7, 2, 1, 3, 8],
    [1, 13, 2, 2, 9],
];

#[test]
fn splits_packed_projections() {
    for sizes @ [batch, tokens, parts, heads, dim] in SIZES {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(SplitHeads { heads, parts }, x);
        let case = Case::new(format!("split {sizes:?}"), &build);
        let len = sizes.iter().product();
        check(&case.variable([batch, tokens, parts * heads * dim], random(1, len)), &Split(sizes), &[&[]]);
    }
}

#[test]
fn a_part_that_nothing_depends_on_has_a_zero_gradient() {
    for (dim, used) in [3, 4].into_iter().flat_map(|dim| [vec![0], vec![1], vec![0, 2]].map(|used| (dim, used))) {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(SplitHeads { heads: 2, parts: 3 }, x);
        let case = Case::new(format!("split by {dim}, gradients of {used:?}"), &build).gradients_of(&used);
        check(&case.variable([2, 5, 6 * dim], random(1, 60 * dim)), &Split([2, 5, 3, 2, dim]), &[&[]]);
    }
}

#[test]
fn joins_heads() {
    for [batch, tokens, _, heads, dim] in SIZES {
        let case = Case::new(format!("join {batch} {heads} {tokens} {dim}"), &|tape, x| vec![tape.apply(JoinHeads, x)]);
        let case = case.variable([batch, heads, tokens, dim], random(1, batch * heads * tokens * dim));
        check(&case, &Join([batch, tokens, 1, heads, dim]), &[&[]]);
    }
}
