use lara_runtime::Tape;
use lara_runtime::ops::Difference;
use lara_tests::{Case, Real, Reference, check, random};

struct Minus;

impl Reference for Minus {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().zip(&x[1]).map(|(&a, &b)| a - b).collect()]
    }
}

#[test]
fn subtracts() {
    for len in [1, 2, 3, 4, 5, 255, 256, 257, 1021] {
        let build = |tape: &mut Tape<'_>, x: &[_]| vec![tape.apply(Difference, x)];
        let case = Case::new(format!("difference {len}"), &build);
        check(&case.variable([len], random(1, len)).variable([len], random(2, len)), &Minus, &[&[]]);
    }
}
