use lara_runtime::attention::KeyNorms;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

struct Norms {
    dim: usize,
    scale: f64,
}

impl Reference for Norms {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let square = |row: &[R]| row.iter().fold(R::of(0.0), |sum, &x| sum + x * x);
        vec![x[0].chunks(self.dim).map(|row| R::of(-self.scale / 2.0) * square(row)).collect()]
    }
}

#[test]
fn halves_scaled_squares() {
    for [batch, heads, tokens, dim] in
        [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 64, 8], [1, 1, 65, 33], [3, 1, 63, 3], [2, 2, 129, 64], [1, 1, 2, 257]]
    {
        let scale = 1.0 / (dim as f32).sqrt();
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(KeyNorms { scale }, x)];
        let case = Case::new(format!("key_norms {batch} {heads} {tokens} {dim}"), &build);
        let case = case.variable([batch, heads, tokens, dim], random(1, batch * heads * tokens * dim));
        check(&case, &Norms { dim, scale: f64::from(scale) }, &[&[]]);
    }
}
