use lara_runtime::maps::discard;
use lara_runtime::{Mode, Parameters, Plan, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

use super::refusal;

/// Inputs: the maps and the ratio.
pub(super) struct Thinned {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) prefix: usize,
}

impl Reference for Thinned {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let entries = self.rows * self.cols;
        // In single precision, as documented.
        let count = (x[1][0].value() as f32).clamp(0.0, 1.0) * entries as f32;
        let thin = |map: &[R]| {
            let mut sorted: Vec<f64> = map.iter().map(|x| x.value()).collect();
            sorted.sort_by(f64::total_cmp);
            let lowest = sorted.get(count as usize).copied().unwrap_or(f64::INFINITY);
            let keep = |(i, &x): (usize, &R)| match i % self.cols < self.prefix || x.value() >= lowest {
                true => x,
                false => R::of(0.0),
            };
            map.iter().enumerate().map(keep).collect::<Vec<R>>()
        };
        vec![x[0].chunks(entries).flat_map(thin).collect()]
    }
}

const RATIOS: [f32; 9] = [0.0, 1e-3, 0.1, 0.5, 0.9, 0.999, 1.0, -3.0, 7.0];

/// Several maps, around a workgroup of 256 entries, with and without a class token. `change` shapes the numbers.
fn compare(name: &str, change: impl Fn(f64) -> f64) {
    for [maps, rows, cols] in
        [[1, 1, 1], [2, 1, 2], [3, 5, 7], [1, 16, 16], [2, 17, 15], [1, 257, 1], [4, 33, 33], [2, 197, 197]]
    {
        for prefix in [0, 1] {
            for ratio in RATIOS {
                let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![discard(&mut tape.rec, x[0], x[1], prefix)];
                let numbers = random(1, maps * rows * cols).into_iter().map(&change).collect();
                let case = Case::new(format!("discard {name} {maps} {rows} {cols} {prefix} {ratio}"), &build);
                let case = case.constant([maps, rows, cols], numbers).constant([1], vec![f64::from(ratio)]);
                check(&case.tolerance(0.0), &Thinned { rows, cols, prefix }, &[&[]]);
            }
        }
    }
}

#[test]
fn discards_the_lowest() {
    compare("random", |x| x);
}

/// Numbers that share most of their bits, and numbers of every size.
#[test]
fn finds_the_threshold_to_the_last_bit() {
    compare("near 1", |x| f64::from((1.0 + 1e-6 * x) as f32));
    compare("tiny to huge", |x| f64::from((x.signum() * (60.0 * x).exp2()) as f32));
}

/// Of equal entries all or none are discarded; a map of one number stays.
#[test]
fn equal_entries_share_their_fate() {
    compare("of five values", |x| (2.0 * x).round());
    compare("of one value", |_| 0.25);
}

/// The ratio is read on the device: one plan serves a slider.
#[test]
fn the_ratio_changes_without_another_recording() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let (x, ratio) = (tape.input("x", [2, 4]), tape.input("ratio", [1]));
    let kept = discard(&mut tape.rec, x, ratio, 1);
    tape.rec.pin(kept);
    let rec = tape.finish().expect("this fits");
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("this compiles");
    plan.poison();
    plan.write(x, &[0.1, 0.2, 0.3, f32::INFINITY, 0.5, 0.6, 0.7, 0.8]).unwrap();
    for (value, want) in [
        (0.25, [0.1, 0.0, 0.3, f32::INFINITY, 0.5, 0.6, 0.7, 0.8]),
        (0.75, [0.1, 0.0, 0.0, f32::INFINITY, 0.5, 0.0, 0.0, 0.8]),
        (0.0, [0.1, 0.2, 0.3, f32::INFINITY, 0.5, 0.6, 0.7, 0.8]),
        (1.0, [0.1, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]),
    ] {
        plan.run().write(ratio, &[value]).steps().submit().expect("this runs");
        assert_eq!(plan.read_blocking(kept).expect("this is read"), want, "{value}");
    }
}

#[test]
fn refuses_what_does_not_fit() {
    for (maps, ratio, said) in [
        (&[9][..], &[1][..], "maps [9] are no matrices; they are [.., N, M]"),
        (&[2, 3, 3], &[2], "maps [2, 3, 3] cannot be thinned by a ratio [2]; it is one number, [1]"),
    ] {
        let refused = refusal(|tape| {
            let [maps, ratio] = [maps, ratio].map(|shape| tape.input("x", shape));
            discard(&mut tape.rec, maps, ratio, 0);
        });
        assert_eq!(refused, said);
    }
}
