use lara_runtime::ops::Gelu;
use lara_tests::{Case, Real, Reference, check, random};

struct Exact;

impl Reference for Exact {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let half = R::of(0.5);
        vec![x[0].iter().map(|&x| half * x * (R::of(1.0) + (x / R::of(2.0_f64.sqrt())).erf())).collect()]
    }
}

#[test]
fn matches_the_exact_form() {
    for len in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1000] {
        let x: Vec<f64> = random(1, len).into_iter().map(|x| 6.0 * x).collect();
        let case = Case::new(format!("gelu {len}"), &|tape, x| vec![tape.apply(Gelu, x)]);
        check(&case.variable([len], x).tolerance(2e-6), &Exact, &[&[]]);
    }
}
