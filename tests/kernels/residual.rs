use lara_runtime::ops::{Difference, Gelu, Residual};
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

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

/// Sums of sums, some read again, some twice, one with a gradient of its own.
struct Tangle;

impl Tangle {
    fn record(tape: &mut Tape<'_>, x: &[Tensor]) -> Vec<Tensor> {
        let bend = |tape: &mut Tape<'_>, x| tape.apply(Gelu, &[x]);
        let a = bend(tape, x[0]);
        let b = bend(tape, a);
        let r = tape.apply(Residual, &[a, b]);
        let s = tape.apply(Residual, &[r, a]);
        let t = bend(tape, r);
        let u = tape.apply(Residual, &[s, t]);
        let w = tape.apply(Residual, &[u, u]);
        let d = tape.apply(Difference, &[w, r]);
        let e = bend(tape, w);
        vec![d, s, tape.apply(Residual, &[e, b])]
    }
}

impl Reference for Tangle {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let bend = |x: R| R::of(0.5) * x * (R::of(1.0) + (x / R::of(2.0_f64.sqrt())).erf());
        let each = |x: &R| {
            let a = bend(*x);
            let b = bend(a);
            let (r, s) = (a + b, a + b + a);
            let u = s + bend(r);
            [u + u - r, s, bend(u + u) + b]
        };
        let rows: Vec<[R; 3]> = x[0].iter().map(each).collect();
        (0..3).map(|i| rows.iter().map(|row| row[i]).collect()).collect()
    }
}

#[test]
fn a_gradient_that_several_tensors_have_in_common_is_parted_before_one_is_added_to() {
    let case = Case::new("sums of sums", &Tangle::record);
    check(&case.variable([7, 37], random(3, 7 * 37)).tolerance(2e-6), &Tangle, &[&[]]);
}

#[test]
fn the_gradient_of_a_sum_is_not_copied() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Differentiate);
    let x = tape.variable("x", [64]);
    let a = tape.apply(Gelu, &[x]);
    let first = tape.apply(Gelu, &[a]);
    let inner = tape.apply(Gelu, &[first]);
    let y = tape.apply(Residual, &[a, inner]);
    let z = tape.apply(Gelu, &[y]);
    let dz = tape.input("dz", [64]);
    tape.backward(&[(z, dz)]);
    let listing = tape.finish().expect("sums can be recorded").to_string();
    assert!(listing.contains("gelu.backward") && !listing.contains("residual.backward"), "{listing}");
}
