use lara_runtime::ops::Residual;
use lara_tests::{Case, Real, Reference, check, random};

struct Sum;

impl Reference for Sum {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().zip(&x[1]).map(|(&a, &b)| a + b).collect()]
    }
}

#[test]
fn adds() {
    for len in [1, 2, 3, 4, 5, 7, 255, 256, 257, 1021] {
        let case = Case::new(format!("residual {len}"), &|tape, x| vec![tape.apply(Residual, x)]);
        let case = case.variable([len], random(1, len)).variable([len], random(2, len));
        check(&case.tolerance(1e-6), &Sum, &[&[]]);
    }
}

#[test]
fn passes_a_gradient_to_one_input_alone() {
    let case = Case::new("residual with a constant", &|tape, x| vec![tape.apply(Residual, x)]);
    let case = case.variable([5, 13], random(1, 65)).constant([5, 13], random(2, 65));
    check(&case.tolerance(1e-6), &Sum, &[&[]]);
}
