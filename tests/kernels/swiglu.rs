use lara_runtime::ops::SwiGlu;
use lara_runtime::{Mode, Parameters, Tape, Tune};
use lara_tests::{Case, Real, Reference, adapter, check, random};

struct Gated {
    width: usize,
}

impl Reference for Gated {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let silu = |a: R| a / (R::of(1.0) + (-a).exp());
        let gated = |row: &[R]| (0..self.width).map(|c| silu(row[c]) * row[self.width + c]).collect::<Vec<R>>();
        vec![x[0].chunks(2 * self.width).flat_map(gated).collect()]
    }
}

#[test]
fn gates_the_second_half_by_the_first() {
    for [batch, tokens, width] in [[1, 1, 1], [2, 3, 5], [1, 7, 64], [3, 1, 65], [2, 33, 31], [1, 129, 2]] {
        let x: Vec<f64> = random(1, batch * tokens * 2 * width).into_iter().map(|x| 6.0 * x).collect();
        let case = Case::new(format!("swiglu {batch} {tokens} {width}"), &|tape, x| vec![tape.apply(SwiGlu, x)]);
        check(&case.variable([batch, tokens, 2 * width], x), &Gated { width }, &[&[]]);
    }
}

/// Far beyond where exp overflows: the gate is open or shut, and nothing is NaN.
#[test]
fn very_large_gates_are_open_or_shut() {
    let x = vec![200.0, -200.0, 300.0, -300.0, 1.0, 2.0, 3.0, 4.0];
    let case = Case::new("swiglu of large gates", &|tape, x| vec![tape.apply(SwiGlu, x)]);
    check(&case.variable([1, 8], x), &Gated { width: 4 }, &[&[]]);
}

#[test]
fn an_odd_width_is_refused() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &Tune::fixed(&[]), Mode::Eval);
    let x = tape.input("x", [2, 5]);
    tape.apply(SwiGlu, &[x]);
    let error = tape.finish().expect_err("odd").to_string();
    assert!(error.contains("[2, 5]") || error.contains("2x5"), "{error}");
}
