use lara_runtime::ops::column_sum;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

struct Sums {
    sizes: [usize; 3],
    scale: f64,
    times: f64,
}

impl Reference for Sums {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let [batch, rows, cols] = self.sizes;
        let mut y = vec![R::of(0.0); batch * cols];
        for (at, &x) in x[0].iter().enumerate() {
            y[at / (rows * cols) * cols + at % cols] += R::of(self.scale * self.times) * x;
        }
        vec![y]
    }
}

/// Around a column block (64), a row block (32), many blocks, and blocks that grow (more than 256 x 32 rows).
const SIZES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 31, 63],
    [1, 32, 64],
    [2, 33, 65],
    [3, 1, 7],
    [5, 97, 2],
    [1, 257, 129],
    [7, 64, 1],
    [2, 1000, 3],
    [1, 8191, 2],
    [1, 8193, 1],
    [300, 2, 5],
];

#[test]
fn stores_and_adds() {
    for sizes @ [batch, rows, cols] in SIZES {
        for times in [1, 2] {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                let y = tape.rec.scratch("y", [batch, cols]);
                for time in 0..times {
                    column_sum(&mut tape.rec, x[0], sizes, y, -0.5, time > 0);
                }
                vec![y]
            };
            let case = Case::new(format!("column_sum {sizes:?} {times} times"), &build);
            let case = case.constant(sizes, random(1, batch * rows * cols));
            check(&case.tolerance(1e-5), &Sums { sizes, scale: -0.5, times: f64::from(times) }, &[&[]]);
        }
    }
}
