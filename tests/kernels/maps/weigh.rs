use lara_runtime::maps::weigh;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

use super::refusal;

struct Weighed;

impl Reference for Weighed {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let cut = |x: R| if x.value() > 0.0 { x } else { R::of(0.0) };
        vec![x[0].iter().zip(&x[1]).map(|(&a, &b)| cut(a * b)).collect()]
    }
}

#[test]
fn multiplies_and_cuts_off_at_zero() {
    for shape @ [_, heads, rows, cols] in [[1, 1, 1, 1], [1, 1, 3, 1], [1, 3, 5, 7], [1, 2, 16, 8], [1, 1, 1021, 1]] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![weigh(&mut tape.rec, x[0], x[1])];
        let case = Case::new(format!("weigh {shape:?}"), &build).tolerance(1e-7);
        let [a, b] = [1, 2].map(|seed| random(seed, heads * rows * cols));
        check(&case.constant(shape, a).constant(shape, b), &Weighed, &[&[]]);
    }
}

#[test]
fn refuses_maps_of_different_shapes() {
    let said = refusal(|tape| {
        let (a, b) = (tape.input("a", [2, 3]), tape.input("b", [3, 2]));
        weigh(&mut tape.rec, a, b);
    });
    assert_eq!(said, "maps [2, 3] cannot be weighed with [3, 2]; their shapes must be the same");
}
