use lara_runtime::Tape;
use lara_runtime::attention::ValueNorms;
use lara_tests::{Case, Real, Reference, assert_close, check, random, run};

struct LogNorms {
    dim: usize,
}

impl Reference for LogNorms {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let norm = |row: &[R]| row.iter().fold(R::of(0.0), |sum, &x| sum + x * x).sqrt();
        vec![x[0].chunks(self.dim).map(|row| (norm(row) + R::of(1e-4)).ln()).collect()]
    }
}

#[test]
fn takes_logarithms_of_norms() {
    for [rows, dim] in [[1, 1], [3, 2], [65, 5], [7, 64], [130, 3]] {
        let build = |tape: &mut Tape<'_>, x: &[_]| vec![tape.apply(ValueNorms, x)];
        let case = Case::new(format!("value_norms {rows} {dim}"), &build);
        check(&case.variable([1, 1, rows, dim], random(1, rows * dim)), &LogNorms { dim }, &[&[]]);
    }
}

#[test]
fn zero_values_have_no_gradient() {
    let build = |tape: &mut Tape<'_>, x: &[_]| vec![tape.apply(ValueNorms, x)];
    let result = run(&Case::new("zeros", &build).variable([1, 1, 2, 3], vec![0.0; 6]), &[], 1);
    assert_close("log of the smallest", &[1e-4_f64.ln(); 2], &result.outputs[0], 1e-6);
    assert_eq!(result.gradients[0], [0.0; 6]);
}
