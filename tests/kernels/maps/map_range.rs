use lara_runtime::{Mode, Parameters, Plan, Tape, Tensor, maps::map_range};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

use super::refusal;

const VARIANTS: [&[&str]; 2] = [&["forward"], &["forward_rows"]];

struct Ends {
    cols: usize,
    skip: usize,
}

impl Reference for Ends {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let ends = |row: &[R]| {
            let by = |keep: fn(f64, f64) -> f64| row[self.skip..].iter().map(|x| x.value()).reduce(keep);
            [by(f64::min), by(f64::max)].map(|end| R::of(end.expect("a row is not empty")))
        };
        vec![x[0].chunks(self.cols).flat_map(ends).collect()]
    }
}

/// Around a workgroup's 64 lanes, and what is skipped being nothing, one and all but one. The skipped elements are larger
/// and smaller than the others.
#[test]
fn finds_both_ends() {
    for (rows, cols) in [(1, 1), (1, 2), (3, 7), (7, 63), (8, 64), (9, 65), (2, 197), (65, 13), (1, 1021), (70_000, 3)]
    {
        for skip in [0, 1, cols - 1].into_iter().filter(|&skip| skip < cols) {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![map_range(&mut tape.rec, x[0], skip)];
            let outside = |(i, x): (usize, f64)| if i % cols < skip { 100.0 * x } else { x };
            let x = random(1, rows * cols).into_iter().enumerate().map(outside).collect();
            let case = Case::new(format!("map_range {rows} {cols} skip {skip}"), &build).tolerance(0.0);
            check(&case.constant([rows, cols], x), &Ends { cols, skip }, &VARIANTS);
        }
    }
}

/// [rows of a selection, heads, keys] keeps its shape in front.
#[test]
fn keeps_the_dimensions_in_front() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let x = tape.input("x", [2, 3, 5]);
    assert_eq!(map_range(&mut tape.rec, x, 0).dims(), [2, 3, 2]);
}

/// Ends of rows that no harness could compare by differences: infinities, zeros, one sign only, the smallest numbers.
#[test]
fn infinities_and_extremes_are_ends_like_others() {
    let (inf, tiny) = (f32::INFINITY, f32::MIN_POSITIVE);
    let rows = [
        [inf, 0.5, -1.0],
        [-inf, 0.5, -1.0],
        [-inf, inf, 0.0],
        [inf, inf, inf],
        [-inf, -inf, -inf],
        [f32::MAX, inf, f32::MIN],
        [-3.0, -2.0, -tiny],
        [tiny, 2.0, 3.0],
    ];
    for preferred in VARIANTS {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Eval);
        let x = tape.input("x", [rows.len(), 3]);
        let range = map_range(&mut tape.rec, x, 0);
        tape.rec.pin(range);
        let rec = tape.finish().expect("this fits");
        let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("this compiles");
        plan.poison();
        plan.write(x, rows.as_flattened()).unwrap();
        plan.run().steps().submit().expect("this runs");
        let want = rows.map(|row| [row.into_iter().fold(inf, f32::min), row.into_iter().fold(-inf, f32::max)]);
        assert_eq!(plan.read_blocking(range).expect("this is read"), want.as_flattened(), "{preferred:?}");
    }
}

#[test]
fn refuses_to_skip_everything() {
    let said = refusal(|tape| {
        let x = tape.input("x", [2, 3]);
        map_range(&mut tape.rec, x, 3);
    });
    assert_eq!(said, "maps [2, 3] have no element from 3 on; skip at most 2");
}
