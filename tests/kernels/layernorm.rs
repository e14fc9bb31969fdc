use lara_runtime::ops::LayerNorm;
use lara_tests::{Case, Real, Reference, check, random, run};

const VARIANTS: &[&[&str]] = &[&["forward"], &["forward_rows"]];

struct Rows {
    cols: usize,
    eps: f64,
}

impl Reference for Rows {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (gain, bias) = (&x[1], &x[2]);
        let count = R::of(self.cols as f64);
        let mut y = Vec::with_capacity(x[0].len());
        for row in x[0].chunks(self.cols) {
            let mean = row.iter().fold(R::of(0.0), |sum, &x| sum + x) / count;
            let variance = row.iter().fold(R::of(0.0), |sum, &x| sum + (x - mean) * (x - mean)) / count;
            let deviation = (variance + R::of(self.eps)).sqrt();
            y.extend((0..self.cols).map(|i| (row[i] - mean) / deviation * gain[i] + bias[i]));
        }
        vec![y]
    }
}

#[test]
fn matches_the_formula() {
    let sizes = [(1, 1), (1, 2), (3, 7), (8, 63), (9, 64), (7, 65), (64, 5), (65, 128), (129, 33), (257, 17), (2, 769)];
    for (rows, cols) in sizes {
        for eps in [1e-5_f32, 1e-6] {
            let build =
                |tape: &mut lara_runtime::Tape<'_>, x: &[lara_runtime::Tensor]| vec![tape.apply(LayerNorm { eps }, x)];
            let x = random(1, rows * cols).into_iter().map(|x| 2.0 * x + 0.5).collect();
            let gain = random(2, cols).into_iter().map(|g| 1.0 + 0.5 * g).collect();
            let case = Case::new(format!("layernorm {rows} x {cols} eps {eps}"), &build)
                .variable([rows, cols], x)
                .variable([cols], gain)
                .variable([cols], random(3, cols));
            check(&case.tolerance(2e-5), &Rows { cols, eps: f64::from(eps) }, VARIANTS);
        }
    }
}

#[test]
fn a_large_mean_does_not_swallow_the_variance() {
    let x = random(1, 4 * 96).into_iter().map(|x| f64::from((1000.0 + x) as f32)).collect();
    let case = Case::new("layernorm of 1000 +- 1", &|tape, x| vec![tape.apply(LayerNorm { eps: 1e-6 }, x)])
        .variable([4, 96], x)
        .constant([96], vec![1.0; 96])
        .constant([96], vec![0.0; 96]);
    // The mean itself is rounded to 1e-7 of 1000.
    check(&case.tolerance(2e-4), &Rows { cols: 96, eps: f64::from(1e-6_f32) }, VARIANTS);
}

#[test]
fn a_constant_row_gives_the_bias() {
    for preferred in VARIANTS {
        let case = Case::new("layernorm of a constant", &|tape, x| vec![tape.apply(LayerNorm { eps: 1e-6 }, x)])
            .variable([2, 64], vec![0.75; 128])
            .constant([64], vec![1.0; 64])
            .constant([64], vec![0.25; 64]);
        let result = run(&case, preferred, 1);
        assert!(result.outputs[0].iter().all(|&y| y == 0.25), "{:?}", result.outputs[0]);
        assert!(result.gradients[0].iter().all(|g| g.is_finite()), "{:?}", result.gradients[0]);
    }
}
