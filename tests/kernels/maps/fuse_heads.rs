use lara_runtime::maps::{Fusion, fuse_heads};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

use super::refusal;

pub(super) struct Fused {
    pub(super) heads: usize,
    pub(super) fusion: Fusion,
}

impl Reference for Fused {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let entries = x[0].len() / self.heads;
        let fuse = |i: usize| {
            let heads = (0..self.heads).map(|head| x[0][head * entries + i]);
            match self.fusion {
                Fusion::Mean => heads.fold(R::of(0.0), |sum, x| sum + x) / R::of(self.heads as f64),
                Fusion::Max => heads.reduce(|a, b| if a > b { a } else { b }).expect("there is a head"),
                Fusion::Min => heads.reduce(|a, b| if a < b { a } else { b }).expect("there is a head"),
            }
        };
        vec![(0..entries).map(fuse).collect()]
    }
}

#[test]
fn fuses_the_heads_entry_by_entry() {
    for shape @ [_, heads, rows, cols] in [[1, 1, 1, 1], [1, 3, 1, 7], [1, 2, 7, 9], [1, 12, 8, 8], [1, 5, 65, 65]] {
        for fusion in [Fusion::Mean, Fusion::Max, Fusion::Min] {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![fuse_heads(&mut tape.rec, x[0], fusion)];
            let case = Case::new(format!("fuse_heads {shape:?} {fusion:?}"), &build).tolerance(1e-6);
            check(&case.constant(shape, random(1, heads * rows * cols)), &Fused { heads, fusion }, &[&[]]);
        }
    }
}

#[test]
fn refuses_what_has_no_heads() {
    let said = refusal(|tape| {
        let x = tape.input("x", [2, 3, 3]);
        fuse_heads(&mut tape.rec, x, Fusion::Max);
    });
    assert_eq!(said, "maps [2, 3, 3] have no heads to be fused; they are [1, heads, N, M]");
}
