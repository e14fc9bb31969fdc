//! The harness itself: it must notice what is wrong, and its numbers must be right.

use lara_runtime::ops::{Gelu, Residual};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Dual, Real, Reference, check, random};

/// What is wrong with a reference for a + b.
enum Flaw {
    Value,
    Gradient,
    OneElement,
}

struct Wrong(Flaw);

impl Reference for Wrong {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let flawed = |i: usize, a: R, b: R| match self.0 {
            Flaw::Value => a + b + R::of(1e-4),
            Flaw::Gradient => a + R::of(0.999) * b + R::of(0.001 * b.value()),
            // The value is right, the derivative of one element of many is not.
            Flaw::OneElement if i == 17 => a + R::of(b.value()),
            Flaw::OneElement => a + b,
        };
        vec![(0..x[0].len()).map(|i| flawed(i, x[0][i], x[1][i])).collect()]
    }
}

fn check_sum(flaw: Flaw) {
    let case = Case::new("flawed", &|tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Residual, x)]);
    check(&case.variable([50], random(1, 50)).variable([50], random(2, 50)), &Wrong(flaw), &[&[]]);
}

#[test]
#[should_panic(expected = "flawed [] x1: output 0")]
fn a_wrong_value_is_noticed() {
    check_sum(Flaw::Value);
}

#[test]
#[should_panic(expected = "flawed [] x1: gradient of input 1")]
fn a_slightly_wrong_gradient_is_noticed() {
    check_sum(Flaw::Gradient);
}

#[test]
#[should_panic(expected = "flawed [] x1: gradient of input 1")]
fn one_wrong_element_of_a_gradient_is_noticed() {
    check_sum(Flaw::OneElement);
}

/// A tensor that nothing writes keeps the poison.
#[test]
#[should_panic(expected = "unwritten [] x1: output 0: [0] is NaN")]
fn what_is_never_written_is_noticed() {
    struct Zero;
    impl Reference for Zero {
        fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
            vec![vec![R::of(0.0); x[0].len()]]
        }
    }
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        tape.apply(Gelu, x);
        vec![tape.rec.pinned("unwritten", [5])]
    };
    check(&Case::new("unwritten", &build).constant([5], vec![0.0; 5]), &Zero, &[&[]]);
}

/// Values from tables of the error function (Abramowitz and Stegun, table 7.1, and DLMF 7.23).
#[test]
fn the_error_function_is_exact() {
    for (x, want) in [
        (0.0, 0.0),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
        (4.0, 0.999_999_984_582_742_1),
    ] {
        assert!((Real::erf(x) - want).abs() < 1e-14, "erf({x}) is {}, not {want}", Real::erf(x));
        assert!((Real::erf(-x) + want).abs() < 1e-14, "erf is odd");
    }
}

/// Dual numbers against central differences.
#[test]
fn dual_numbers_differentiate() {
    fn f<R: Real>(x: R) -> R {
        let y = (x * x + R::of(0.5)).sqrt().exp() / (x + R::of(3.0)) - x.erf();
        -(y * y + x.ln())
    }
    for x in [0.3, 0.9, 1.7] {
        let h = 1e-6;
        let differences = (f(x + h) - f(x - h)) / (2.0 * h);
        let Dual(value, derivative) = f(Dual(x, 1.0));
        assert!((value - f(x)).abs() < 1e-15, "value at {x}");
        assert!((derivative - differences).abs() < 1e-8, "derivative at {x}: {derivative}, not {differences}");
    }
}
