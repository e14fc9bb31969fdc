use lara_runtime::{Tape, Tensor, maps::select_rows};
use lara_tests::{Case, Real, Reference, check, random};

use super::refusal;

struct Asked {
    rows: usize,
    heads: usize,
    tokens: usize,
    channels: usize,
}

impl Reference for Asked {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut dout = Vec::new();
        for _ in 0..self.heads {
            for n in 0..self.tokens {
                let of = |c: usize| if c < self.rows { x[0][c * self.tokens + n] } else { R::of(0.0) };
                dout.extend((0..self.channels).map(of));
            }
        }
        vec![dout]
    }
}

/// One row and as many as there are channels; around a workgroup of 64; beyond 65,535 workgroups.
#[test]
fn puts_each_row_into_a_channel_of_every_head() {
    for [rows, heads, tokens, channels] in [
        [1, 1, 1, 1],
        [1, 3, 7, 5],
        [5, 2, 7, 5],
        [2, 1, 63, 1 + 1],
        [3, 2, 13, 64],
        [8, 1, 8, 8],
        [13, 3, 5, 13],
        [1, 12, 197, 64],
        [2, 1, 65_536, 65],
    ] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let dout = tape.rec.scratch("dout", [1, heads, tokens, channels]);
            select_rows(&mut tape.rec, x[0], dout);
            vec![dout]
        };
        let case = Case::new(format!("select_rows {rows} {heads} {tokens} {channels}"), &build).tolerance(0.0);
        let case = case.constant([rows, tokens], random(1, rows * tokens));
        check(&case, &Asked { rows, heads, tokens, channels }, &[&[]]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    for (select, dout) in [
        (&[2, 6][..], &[1, 2, 5, 4][..]),
        (&[5, 5], &[1, 2, 5, 4]),
        (&[2, 5], &[2, 2, 5, 4]),
        (&[2, 5], &[2, 5, 4]),
        (&[5], &[1, 2, 5, 4]),
    ] {
        let said = refusal(|tape| {
            let [select, dout] = [select, dout].map(|shape| tape.input("x", shape));
            select_rows(&mut tape.rec, select, dout);
        });
        let want = format!(
            "a selection {select:?} does not fit an output {dout:?}; it is [R, N] for an output [1, heads, N, D], with at \
             most D rows at once"
        );
        assert_eq!(said, want);
    }
}
