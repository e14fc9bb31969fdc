use lara_runtime::ops::CrossEntropy;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random, run};

struct Loss {
    classes: usize,
    smoothing: f64,
}

fn largest<R: Real>(row: &[R]) -> usize {
    (0..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best })
}

impl Reference for Loss {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let rows = x[0].len() / self.classes;
        let (mut sum, mut correct) = (R::of(0.0), 0.0);
        for (logits, targets) in x[0].chunks(self.classes).zip(x[1].chunks(self.classes)) {
            let shift = R::of(logits[largest(logits)].value());
            let total = logits.iter().fold(R::of(0.0), |sum, &x| sum + (x - shift).exp()).ln() + shift;
            for (&x, &t) in logits.iter().zip(targets) {
                sum += (R::of(1.0 - self.smoothing) * t + R::of(self.smoothing / self.classes as f64)) * (total - x);
            }
            correct += f64::from(u8::from(largest(logits) == largest(targets)));
        }
        let loss = sum / R::of(rows as f64);
        vec![vec![loss], vec![loss, R::of(correct / rows as f64)]]
    }
}

/// Rows of numbers that sum to 1.
fn soft_targets(rows: usize, classes: usize) -> Vec<f64> {
    let raw: Vec<f64> = random(2, rows * classes).into_iter().map(|t| t + 1.0 + 1e-3).collect();
    raw.chunks(classes).flat_map(|row| row.iter().map(|t| t / row.iter().sum::<f64>()).collect::<Vec<_>>()).collect()
}

fn one_hot(rows: usize, classes: usize) -> Vec<f64> {
    (0..rows * classes).map(|i| f64::from(u8::from((i / classes * 7 + 3) % classes == i % classes))).collect()
}

fn compare(name: &str, [rows, classes]: [usize; 2], logits: Vec<f64>, targets: Vec<f64>, smoothing: f32) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(CrossEntropy { smoothing }, x);
    let case = Case::new(format!("cross_entropy {name} {rows} x {classes} smoothing {smoothing}"), &build)
        .variable([rows, classes], logits)
        .constant([rows, classes], targets)
        .gradients_of(&[0])
        .tolerance(1e-5);
    check(&case, &Loss { classes, smoothing: f64::from(smoothing) }, &[&[]]);
}

#[test]
fn matches_soft_and_hard_targets_with_smoothing() {
    for size @ [rows, classes] in [[1, 1], [1, 2], [7, 3], [8, 10], [9, 10], [64, 100], [65, 17], [3, 1000]] {
        for smoothing in [0.0, 0.1] {
            let logits: Vec<f64> = random(1, rows * classes).into_iter().map(|x| 5.0 * x).collect();
            compare("soft", size, logits.clone(), soft_targets(rows, classes), smoothing);
            compare("one-hot", size, logits, one_hot(rows, classes), smoothing);
        }
    }
}

#[test]
fn large_logits_stay_finite() {
    let logits: Vec<f64> = random(1, 50).into_iter().map(|x| 1e4 * x).collect();
    compare("logits of 1e4", [5, 10], logits, one_hot(5, 10), 0.1);
}

#[test]
fn a_sure_and_right_answer_costs_nothing() {
    let logits: Vec<f64> = one_hot(6, 10).into_iter().map(|t| 200.0 * t).collect();
    let case = Case::new("sure", &|tape, x| tape.apply_all(CrossEntropy { smoothing: 0.0 }, x));
    let case = case.variable([6, 10], logits).constant([6, 10], one_hot(6, 10)).gradients_of(&[0]);
    let result = run(&case, &[], 1);
    assert_eq!(result.outputs, [vec![0.0], vec![0.0, 1.0]]);
    assert!(result.gradients[0].iter().all(|&g| g == 0.0), "{:?}", result.gradients[0]);
}
