use lara_runtime::attention::Broadcast;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

struct Repeated {
    batch: usize,
    factor: f64,
}

impl Reference for Repeated {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let once: Vec<R> = x[0].iter().map(|&x| R::of(self.factor) * x).collect();
        vec![once.repeat(self.batch)]
    }
}

#[test]
fn gives_every_sample_the_same() {
    for (batch, [heads, rows, dim], factor) in
        [(1, [1, 1, 1], 1.0_f32), (3, [2, 5, 7], 2.5), (2, [1, 63, 1], -0.5), (5, [4, 4, 4], 1.5), (4, [3, 65, 3], 3.0)]
    {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Broadcast { batch, factor }, x)];
        let case = Case::new(format!("broadcast {batch} {heads} {rows} {dim}"), &build);
        let case = case.variable([heads, rows, dim], random(1, heads * rows * dim));
        check(&case, &Repeated { batch, factor: f64::from(factor) }, &[&[]]);
    }
}
