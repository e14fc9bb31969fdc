use lara_runtime::ops::LayerScale;
use lara_tests::{Case, Real, Reference, check, random};

struct Scaled {
    dim: usize,
}

impl Reference for Scaled {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().enumerate().map(|(i, &x_i)| x[1][i % self.dim] * x_i).collect()]
    }
}

#[test]
fn scales_channels() {
    for [rows, dim] in [[1, 1], [2, 3], [7, 13], [3, 64], [65, 1], [63, 65], [130, 24], [1, 257]] {
        let case = Case::new(format!("layer_scale {rows} {dim}"), &|tape, x| vec![tape.apply(LayerScale, x)]);
        let case = case.variable([rows, dim], random(1, rows * dim)).variable([dim], random(2, dim));
        check(&case, &Scaled { dim }, &[&[]]);
    }
}

/// A branch whose factors alone are learned, and one whose factors are fixed.
#[test]
fn gives_either_gradient_alone() {
    let build = |tape: &mut lara_runtime::Tape<'_>, x: &[lara_runtime::Tensor]| vec![tape.apply(LayerScale, x)];
    let case = || Case::new("layer_scale with a constant", &build);
    let (x, gamma) = (random(1, 5 * 11), random(2, 11));
    check(&case().constant([5, 11], x.clone()).variable([11], gamma.clone()), &Scaled { dim: 11 }, &[&[]]);
    check(&case().variable([5, 11], x).constant([11], gamma), &Scaled { dim: 11 }, &[&[]]);
}
