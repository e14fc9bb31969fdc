use lara_runtime::attention::RelativeLse;
use lara_runtime::{Mode, Tape, Tensor};
use lara_tests::{Case, Real, Reference, assert_close, check, random, run};

/// Inputs: a log-sum-exp, its peaks and sums, and perhaps the same of what is subtracted.
struct Relative {
    cols: usize,
}

impl Reference for Relative {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let row = |i: usize| i / self.cols * self.cols..(i / self.cols + 1) * self.cols;
        let largest = |i: usize| row(i).map(|c| x[1][2 * c].value()).fold(f64::NEG_INFINITY, f64::max);
        let below = |i: usize| x.get(2).map_or(R::of(largest(i)), |below| below[i]);
        vec![(0..x[0].len()).map(|i| x[0][i] - below(i)).collect()]
    }
}

/// A log-sum-exp near `size`, and the peaks and sums that it is made of.
fn normaliser(seed: u32, size: f64, len: usize) -> [Vec<f64>; 2] {
    let part = |[peak, sum]: [f64; 2]| [size + (16.0 * peak).round() / 8.0, f64::from((9.0 + 8.0 * sum) as f32)];
    let parts: Vec<[f64; 2]> = random(seed, 2 * len).chunks(2).map(|x| part([x[0], x[1]])).collect();
    [parts.iter().map(|[peak, sum]| peak + sum.ln()).collect(), parts.concat()]
}

/// Near 0 and near 1e4, where a log-sum-exp in f32 is off by 5e-4.
#[test]
fn is_relative_to_another_or_to_the_largest_of_a_row() {
    for [batch, heads, cols] in [[1, 1, 1], [2, 3, 5], [1, 2, 64], [2, 1, 65], [1, 1, 257]] {
        for size in [0.0, 1e4] {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(RelativeLse, x)];
            let len = batch * heads * cols;
            for is_difference in [false, true] {
                let mut case = Case::new(format!("relative_lse near {size} {heads} {cols} {is_difference}"), &build);
                let both = [normaliser(1, size, len), normaliser(3, size, len)];
                for [lse, parts] in both.into_iter().take(1 + usize::from(is_difference)) {
                    case = case.variable([batch, heads, cols], lse).constant([batch, heads, cols, 2], parts);
                }
                check(&case, &Relative { cols }, &[&[]]);
            }
        }
    }
}

/// Nothing visible stays hidden, in a row of its own and beside others.
#[test]
fn keeps_the_mask() {
    let parts = vec![-1e30, 0.0, -1e30, 0.0, -1e30, 0.0, 3.0, 2.0];
    for below in [None, Some(vec![1.0, 1.0, 2.0, 1.0, -1e30, 0.0, 5.0, 1.0])] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(RelativeLse, x)];
        let lse = vec![-1e30, -1e30, -1e30, 3.0];
        let mut case = Case::new("masked", &build).mode(Mode::Eval).variable([1, 2, 2], lse.clone());
        case = case.constant([1, 2, 2, 2], parts.clone());
        if let Some(below) = below {
            case = case.variable([1, 2, 2], lse).constant([1, 2, 2, 2], below);
        }
        let got = run(&case, &[], 1).outputs.remove(0);
        assert_close("masked", &[1.0, 1.0, 1.0], &got[..3].iter().map(|x| x / -1e30).collect::<Vec<_>>(), 1e-6);
        let visible = if case.values().len() == 2 { 0.0 } else { -2.0 } + 2.0_f64.ln();
        assert_close("visible", &[visible], &got[3..], 1e-6);
    }
}
