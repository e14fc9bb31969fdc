use lara_runtime::ops::GeluTanh;
use lara_tests::{Case, Real, Reference, check, random};

struct Tanh;

impl Reference for Tanh {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (half, one) = (R::of(0.5), R::of(1.0));
        let of = |x: R| {
            let inner = R::of((2.0 / std::f64::consts::PI).sqrt()) * (x + R::of(0.044_715) * x * x * x);
            // tanh of what is far from 0 is 1 or -1 to every digit, and e^2x would overflow.
            let inner = if inner.value().abs() > 300.0 { R::of(300.0_f64.copysign(inner.value())) } else { inner };
            let squared = (inner + inner).exp();
            half * x * (one + (squared - one) / (squared + one))
        };
        vec![x[0].iter().map(|&x| of(x)).collect()]
    }
}

#[test]
fn matches_the_tanh_form() {
    for len in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1000] {
        let x: Vec<f64> = random(1, len).into_iter().map(|x| 6.0 * x).collect();
        let case = Case::new(format!("gelu_tanh {len}"), &|tape, x| vec![tape.apply(GeluTanh, x)]);
        check(&case.variable([len], x).tolerance(2e-6), &Tanh, &[&[]]);
    }
    // Where tanh is flat nothing overflows on the way.
    let x = vec![-1e12, -1e4, -100.0, -20.0, -11.0, -9.5, 0.0, 9.5, 11.0, 20.0, 100.0, 1e4, 1e12];
    let case = Case::new("gelu_tanh far", &|tape, x| vec![tape.apply(GeluTanh, x)]);
    check(&case.variable([x.len()], x).tolerance(2e-6), &Tanh, &[&[]]);
}
