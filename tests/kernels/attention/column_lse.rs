use lara_runtime::attention::ColumnLse;
use lara_tests::{Case, Real, Reference, check, random};

struct Columns {
    rows: usize,
    cols: usize,
}

impl Reference for Columns {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut y = Vec::new();
        for matrix in x[0].chunks(self.rows * self.cols) {
            for c in 0..self.cols {
                let column: Vec<R> = (0..self.rows).map(|n| matrix[n * self.cols + c]).collect();
                y.push(super::lse(&column));
            }
        }
        vec![y]
    }
}

fn compare(name: &str, [batch, heads, rows, cols]: [usize; 4], size: f64) {
    let case = Case::new(format!("{name} {batch} {heads} {rows} {cols}"), &|tape, x| vec![tape.apply(ColumnLse, x)]);
    let x = random(1, batch * heads * rows * cols).into_iter().map(|x| f64::from((size * x) as f32)).collect();
    check(&case.variable([batch, heads, rows, cols], x), &Columns { rows, cols }, &[&[]]);
}

#[test]
fn sums_exponentials_down_columns() {
    for sizes in [
        [1, 1, 1, 1],
        [2, 3, 5, 7],
        [1, 1, 31, 63],
        [1, 2, 32, 64],
        [2, 1, 33, 65],
        [1, 1, 97, 129],
        [3, 2, 196, 49],
        [1, 1, 1, 200],
        [1, 1, 8200, 3],
    ] {
        compare("column_lse", sizes, 3.0);
    }
}

#[test]
fn large_numbers_stay_finite() {
    compare("column_lse of 1e4", [1, 2, 100, 5], 1e4);
}

/// Numbers near 1e4 that differ by little: a share of a column worked out of its log-sum-exp would be off by 5e-4.
#[test]
fn numbers_of_ten_thousand_cost_no_digits() {
    for sizes @ [batch, heads, rows, cols] in [[1, 2, 100, 5], [1, 1, 8200, 3]] {
        let case = Case::new(format!("near 1e4 {sizes:?}"), &|tape, x| vec![tape.apply(ColumnLse, x)]);
        let x = random(1, batch * heads * rows * cols).into_iter().map(|x| 1e4 + (16.0 * x).round() / 8.0).collect();
        check(&case.variable(sizes, x), &Columns { rows, cols }, &[&[]]);
    }
}
