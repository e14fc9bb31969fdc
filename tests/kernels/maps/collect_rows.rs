use lara_runtime::{Tape, Tensor, maps::collect_rows};
use lara_tests::{Case, Real, Reference, check, random};

use super::refusal;

struct Collected {
    rows: usize,
    heads: usize,
    keys: usize,
    channels: usize,
}

impl Reference for Collected {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let at = |head: usize, key: usize, row: usize| x[0][(head * self.keys + key) * self.channels + row];
        let mut rows = Vec::new();
        for row in 0..self.rows {
            for head in 0..self.heads {
                rows.extend((0..self.keys).map(|key| at(head, key, row)));
            }
            let sum = |key| (0..self.heads).fold(R::of(0.0), |sum, head| sum + at(head, key, row));
            rows.extend((0..self.keys).map(|key| sum(key) / R::of(self.heads as f64)));
        }
        vec![rows]
    }
}

/// One row and as many as there are channels; around a workgroup of 64; beyond 65,535 workgroups.
#[test]
fn reads_each_row_out_of_a_channel_and_averages_the_heads() {
    for [rows, heads, keys, channels] in [
        [1, 1, 1, 1],
        [1, 3, 7, 5],
        [5, 2, 7, 5],
        [1, 2, 63, 4],
        [1, 2, 64, 4],
        [5, 3, 13, 64],
        [13, 12, 197, 64],
        [64, 1, 65_537, 64],
    ] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let rows = tape.rec.scratch("rows", [rows, heads + 1, keys]);
            collect_rows(&mut tape.rec, x[0], rows);
            vec![rows]
        };
        let case = Case::new(format!("collect_rows {rows} {heads} {keys} {channels}"), &build).tolerance(1e-6);
        let case = case.constant([1, heads, keys, channels], random(1, heads * keys * channels));
        check(&case, &Collected { rows, heads, keys, channels }, &[&[]]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    for (dv, rows) in [
        (&[1, 2, 5, 4][..], &[3, 2, 5][..]),
        (&[1, 2, 5, 4], &[5, 3, 5]),
        (&[1, 2, 5, 4], &[4, 3, 6]),
        (&[2, 2, 5, 4], &[4, 3, 5]),
        (&[2, 5, 4], &[4, 3, 5]),
        (&[1, 2, 5, 4], &[4, 15]),
    ] {
        let said = refusal(|tape| {
            let [dv, rows] = [dv, rows].map(|shape| tape.input("x", shape));
            collect_rows(&mut tape.rec, dv, rows);
        });
        let want = format!(
            "rows {rows:?} cannot be read from a gradient of values {dv:?}; they are [R, heads + 1, M] for [1, heads, M, D], \
             with R at most D"
        );
        assert_eq!(said, want);
    }
}
