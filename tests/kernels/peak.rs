use lara_runtime::ops::peak::{MULTIPLY_ADDS, copy, multiply_add};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random, run};

struct Same;

impl Reference for Same {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].clone()]
    }
}

fn recorded(tape: &mut Tape<'_>, x: Tensor, record: impl FnOnce(&mut Tape<'_>, Tensor)) -> Vec<Tensor> {
    let y = tape.rec.scratch("y", x.shape());
    record(tape, y);
    vec![y]
}

#[test]
fn copies_every_element() {
    for len in [1, 3, 4, 5, 255, 256, 257, 1021] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| recorded(tape, x[0], |tape, y| copy(&mut tape.rec, x[0], y));
        check(&Case::new(format!("copy {len}"), &build).constant([len], random(1, len)).tolerance(1e-9), &Same, &[&[]]);
    }
}

/// a = a factor + term with factor 1: every multiply-add adds the term once, so the result counts them.
#[test]
fn does_as_many_multiply_adds_as_it_says() {
    for rounds in [1, 2, 7] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            recorded(tape, x[0], |tape, y| multiply_add(&mut tape.rec, x[0], y, rounds))
        };
        // For every four elements: factor, term, and two more starting values.
        let x: Vec<f64> = (0..130).flat_map(|i| [1.0, f64::from(i % 3), 0.0, f64::from(i)]).collect();
        let case = Case::new("multiply_add", &build).constant([x.len()], x.clone());
        let y = run(&case, &[], 1).outputs.remove(0);
        for (x, y) in x.chunks(4).zip(y.chunks(4)) {
            // Two vectors start at x and x + 1; together each element takes a quarter of the multiply-adds.
            let counted: Vec<f64> =
                x.iter().map(|x0| 2.0 * x0 + 1.0 + (rounds * MULTIPLY_ADDS / 4) as f64 * x[1]).collect();
            assert_eq!(counted, y, "{rounds} rounds from {x:?}");
        }
    }
}
