use lara_runtime::ops::Relu;
use lara_tests::{Case, Real, Reference, check, random};

struct Rectified;

impl Reference for Rectified {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().map(|&x| if x.value() > 0.0 { x } else { R::of(0.0) }).collect()]
    }
}

#[test]
fn keeps_what_is_above_zero() {
    for len in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1000] {
        // Zeros among them: neither value nor gradient passes there.
        let x: Vec<f64> =
            random(1, len).into_iter().enumerate().map(|(i, x)| if i % 7 == 3 { 0.0 } else { x }).collect();
        let case = Case::new(format!("relu {len}"), &|tape, x| vec![tape.apply(Relu, x)]);
        check(&case.variable([len], x).tolerance(1e-6), &Rectified, &[&[]]);
    }
}
