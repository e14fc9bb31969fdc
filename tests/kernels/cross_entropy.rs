use lara_runtime::ops::CrossEntropy;
use lara_runtime::{Header, Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, run, tune};

struct Loss {
    classes: usize,
    smoothing: f64,
}

fn largest<R: Real>(row: &[R]) -> usize {
    (0..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
}

/// The target of every class, written out: what the kernel never holds.
fn dense(target: [f64; 3], classes: usize) -> Vec<f64> {
    let [first, second, share] = target;
    let mut dense = vec![0.0; classes];
    dense[first as usize] += 1.0 - share;
    dense[second as usize] += share;
    dense
}

impl Reference for Loss {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (mut sum, mut correct, mut rows) = (R::of(0.0), 0.0, 0.0);
        for (logits, target) in x[0].chunks(self.classes).zip(x[1].chunks(3)) {
            let target = [0, 1, 2].map(|at| target[at].value());
            if target[0] < 0.0 {
                continue;
            }
            let shift = R::of(logits[largest(logits)].value());
            let total = logits.iter().fold(R::of(0.0), |sum, &x| sum + (x - shift).exp()).ln() + shift;
            for (&x, t) in logits.iter().zip(dense(target, self.classes)) {
                sum += R::of((1.0 - self.smoothing) * t + self.smoothing / self.classes as f64) * (total - x);
            }
            let likeliest = if target[2] > 0.5 { target[1] } else { target[0] };
            correct += f64::from(u8::from(largest(logits) == likeliest as usize));
            rows += 1.0;
        }
        let (loss, accuracy) = (sum / R::of(f64::max(rows, 1.0)), correct / f64::max(rows, 1.0));
        vec![vec![loss], vec![loss, R::of(accuracy), R::of(rows)]]
    }
}

fn labels(rows: usize, classes: usize) -> Vec<f64> {
    (0..rows).flat_map(|row| [((row * 7 + 3) % classes) as f64, 0.0, 0.0]).collect()
}

/// Mixtures of two classes, in shares on both sides of a half; now and then both are the same.
fn mixtures(rows: usize, classes: usize) -> Vec<f64> {
    let share = |row: usize| f64::from(((0.5 + 0.5 * random(2, rows)[row]) as f32).clamp(0.0, 1.0));
    (0..rows).flat_map(|row| [((row * 7 + 3) % classes) as f64, ((row * 5 + 1) % classes) as f64, share(row)]).collect()
}

/// Every third row does not count, among them the first.
fn ignored(mut targets: Vec<f64>) -> Vec<f64> {
    targets.chunks_mut(3).step_by(3).for_each(|target| target[0] = -100.0);
    targets
}

fn compare(name: &str, [rows, classes]: [usize; 2], logits: Vec<f64>, targets: Vec<f64>, smoothing: f32) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(CrossEntropy { smoothing }, x);
    let case = Case::new(format!("cross_entropy {name} {rows} x {classes} smoothing {smoothing}"), &build)
        .variable([rows, classes], logits)
        .constant([rows, 3], targets)
        .gradients_of(&[0])
        .tolerance(1e-5);
    check(&case, &Loss { classes, smoothing: f64::from(smoothing) }, &[&[]]);
}

#[test]
fn matches_labels_mixtures_and_ignored_rows_with_smoothing() {
    for size @ [rows, classes] in [[1, 1], [1, 2], [7, 3], [8, 10], [9, 10], [64, 100], [65, 17], [3, 1000]] {
        for smoothing in [0.0, 0.1] {
            let logits: Vec<f64> = random(1, rows * classes).into_iter().map(|x| 5.0 * x).collect();
            compare("mixtures", size, logits.clone(), mixtures(rows, classes), smoothing);
            compare("labels", size, logits.clone(), labels(rows, classes), smoothing);
            compare("with ignored rows", size, logits, ignored(mixtures(rows, classes)), smoothing);
        }
    }
}

#[test]
fn large_logits_stay_finite() {
    let logits: Vec<f64> = random(1, 50).into_iter().map(|x| 1e4 * x).collect();
    compare("logits of 1e4", [5, 10], logits, labels(5, 10), 0.1);
}

/// Logits near 1e4 that differ by little: out of their log-sum-exp a probability would be off by 5e-4.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    for size @ [rows, classes] in [[5, 10], [9, 1000]] {
        let logits = random(1, rows * classes).into_iter().map(|x| 1e4 + (16.0 * x).round() / 8.0).collect();
        compare("near 1e4", size, logits, mixtures(rows, classes), 0.1);
    }
}

/// As many classes as words, one more and one less.
#[test]
fn matches_for_vocabularies() {
    for size @ [rows, classes] in [[3, 32_000], [2, 65_535], [3, 65_536], [1, 65_537]] {
        let logits: Vec<f64> = random(1, rows * classes).into_iter().map(|x| 5.0 * x).collect();
        compare("mixtures", size, logits.clone(), mixtures(rows, classes), 0.1);
        compare("labels", size, logits, labels(rows, classes), 0.0);
    }
}

#[test]
fn a_sure_and_right_answer_costs_nothing() {
    let logits: Vec<f64> =
        labels(6, 10).chunks(3).flat_map(|t| dense([t[0], 0.0, 0.0], 10)).map(|t| 200.0 * t).collect();
    let case = Case::new("sure", &|tape, x| tape.apply_all(CrossEntropy { smoothing: 0.0 }, x));
    let case = case.variable([6, 10], logits).constant([6, 3], labels(6, 10)).gradients_of(&[0]);
    let result = run(&case, &[], 1);
    assert_eq!(result.outputs, [vec![0.0], vec![0.0, 1.0, 6.0]]);
    assert!(result.gradients[0].iter().all(|&g| g == 0.0), "{:?}", result.gradients[0]);
}

/// What an ignored row holds reaches nothing, not even where it is no number.
#[test]
fn an_ignored_row_may_hold_anything() {
    let mut logits = random(1, 3 * 5);
    logits[5..10].fill(f64::NAN);
    let targets = vec![1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 4.0, 2.0, 0.25];
    let case = Case::new("ignored", &|tape, x| tape.apply_all(CrossEntropy { smoothing: 0.1 }, x));
    let result = run(&case.variable([3, 5], logits).constant([3, 3], targets).gradients_of(&[0]), &[], 1);
    assert!(result.outputs.iter().flatten().all(|value| value.is_finite()), "{:?}", result.outputs);
    assert_eq!(result.outputs[1][2], 2.0);
    assert!(result.gradients[0].iter().all(|value| value.is_finite()), "{:?}", result.gradients[0]);
    assert_eq!(result.gradients[0][5..10], [0.0; 5]);
}

/// Mean loss and accuracy are over all rows of a cycle, not over means of micro-steps that may have few rows.
#[test]
fn statistics_are_over_the_rows_of_all_micro_steps() {
    let (rows, classes) = (4, 6);
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let (x, targets) = (tape.input("x", [rows, classes]), tape.input("targets", [rows, 3]));
    let statistics = tape.apply_all(CrossEntropy { smoothing: 0.0 }, &[x, targets])[1];
    tape.rec.pin(statistics);
    let recording = tape.finish().expect("it is recorded");
    parameters.allocate_blocking(adapter(), &[Role::Weight]).expect("there is nothing to allocate");
    let plan = Plan::compile_blocking(adapter(), recording, &parameters).expect("it compiles");
    let logits: Vec<f64> = random(3, 3 * rows * classes).into_iter().map(|x| 3.0 * x).collect();
    let mut all = mixtures(3 * rows, classes);
    // One row of the first micro-step counts, none of the second, all of the third.
    all[3..6 * 4].chunks_mut(3).for_each(|target| target[0] = -1.0);
    let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    for micro_step in 0..3 {
        let (x_now, targets_now) =
            (&logits[micro_step * rows * classes..][..rows * classes], &all[micro_step * rows * 3..][..rows * 3]);
        let header = Header { micro_step: micro_step as u32, ..Header::default() };
        let run = plan.run().write(x, &single(x_now)).write(targets, &single(targets_now)).header(header);
        run.steps().submit().expect("it runs");
    }
    let found = plan.read_blocking(statistics).expect("it can be read");
    let wanted = &Loss { classes, smoothing: 0.0 }.eval(&[logits, all])[1];
    assert_eq!(wanted[2], 5.0);
    let near = found.iter().zip(wanted).all(|(f, w)| (f64::from(*f) - w).abs() < 1e-6);
    assert!(near, "{found:?}, not {wanted:?}");
}
