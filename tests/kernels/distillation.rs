use lara_runtime::ops::{CrossEntropy, Distillation};
use lara_runtime::{Header, Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, run, tune};

/// DeiT's `DistillationLoss`, with the other loss given.
struct Loss {
    classes: usize,
    hard: bool,
    alpha: f64,
    tau: f64,
}

/// log softmax of a row over a temperature.
fn log_softmax<R: Real>(row: &[R], tau: f64) -> Vec<R> {
    let shift = R::of(row.iter().map(|x| x.value()).fold(f64::NEG_INFINITY, f64::max));
    let scaled: Vec<R> = row.iter().map(|&x| (x - shift) * R::of(1.0 / tau)).collect();
    let total = scaled.iter().fold(R::of(0.0), |sum, &x| sum + x.exp()).ln();
    scaled.into_iter().map(|x| x - total).collect()
}

impl Reference for Loss {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (mut sum, mut count) = (R::of(0.0), 0.0);
        for (student, teacher) in x[0].chunks(self.classes).zip(x[1].chunks(self.classes)) {
            // Nothing flows to the teacher.
            let teacher: Vec<R> = teacher.iter().map(|t| R::of(t.value())).collect();
            if self.hard {
                let best = (0..teacher.len()).fold(0, |best, k| if teacher[k] > teacher[best] { k } else { best });
                sum += R::of(-1.0) * log_softmax(student, 1.0)[best];
                count += 1.0;
            } else {
                for (s, t) in log_softmax(student, self.tau).into_iter().zip(log_softmax(&teacher, self.tau)) {
                    sum += t.exp() * (t - s);
                    count += 1.0;
                }
            }
        }
        let scale = if self.hard { 1.0 } else { self.tau * self.tau };
        let distilled = sum * R::of(scale / count);
        let loss = R::of(1.0 - self.alpha) * x[2][0] + R::of(self.alpha) * distilled;
        let [accuracy, rows] = [1, 2].map(|at| R::of(x[3][at].value()));
        vec![vec![loss], vec![R::of(loss.value()), accuracy, rows]]
    }
}

fn case<'a>(
    name: &str,
    build: &'a dyn Fn(&mut Tape<'_>, &[Tensor]) -> Vec<Tensor>,
    size: [usize; 2],
    logits: [Vec<f64>; 2],
) -> Case<'a> {
    let [student, teacher] = logits;
    Case::new(format!("distillation {name} {size:?}"), build)
        .variable(size, student)
        .variable(size, teacher)
        .variable([1], vec![1.75])
        .constant([3], vec![9.0, 0.25, size[0] as f64])
        .gradients_of(&[0])
        .tolerance(1e-5)
}

fn compare(name: &str, size: [usize; 2], logits: [Vec<f64>; 2], hard: bool, [alpha, tau]: [f32; 2]) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Distillation { hard, alpha, tau }, x);
    let reference = Loss { classes: size[1], hard, alpha: f64::from(alpha), tau: f64::from(tau) };
    let name = format!("{name}, hard {hard}, alpha {alpha}, tau {tau}");
    check(&case(&name, &build, size, logits), &reference, &[&[]]);
}

fn spread(seed: u32, len: usize, by: f64) -> Vec<f64> {
    random(seed, len).into_iter().map(|x| by * x).collect()
}

#[test]
fn matches_deits_losses() {
    for size @ [rows, classes] in [[1, 1], [1, 2], [7, 3], [8, 10], [64, 100], [65, 17], [3, 1000]] {
        let logits = [1, 2].map(|seed| spread(seed, rows * classes, 5.0));
        compare("answers", size, logits.clone(), true, [0.5, 1.0]);
        for settings in [[0.5, 1.0], [0.5, 3.0], [0.9, 0.5], [0.0, 1.0], [1.0, 2.0]] {
            compare("probabilities", size, logits.clone(), false, settings);
        }
    }
}

#[test]
fn large_logits_stay_finite() {
    let logits = [1, 2].map(|seed| spread(seed, 50, 1e4));
    compare("logits of 1e4", [5, 10], logits.clone(), true, [0.5, 1.0]);
    compare("logits of 1e4", [5, 10], logits, false, [0.5, 1.0]);
}

/// Logits near 1e4 that differ by little: out of their log-sum-exp a probability would be off by 5e-4.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    for size @ [rows, classes] in [[5, 10], [9, 1000]] {
        let near = |seed| random(seed, rows * classes).into_iter().map(|x| 1e4 + (16.0 * x).round() / 8.0).collect();
        let logits: [Vec<f64>; 2] = [near(1), near(2)];
        compare("near 1e4", size, logits.clone(), true, [1.0, 1.0]);
        compare("near 1e4", size, logits, false, [1.0, 2.0]);
    }
}

/// Equal terms, whose rounding adds up where they are one chain.
#[test]
fn sums_over_very_many_classes_stay_exact() {
    let size @ [rows, classes] = [2, 262_147];
    let row = |first: f64, others: f64| -> Vec<f64> {
        (0..rows * classes).map(|i| if i % classes == 0 { first } else { others }).collect()
    };
    let logits = [row(0.75, 0.125), row(0.25, 0.625)];
    compare("equal terms", size, logits.clone(), true, [1.0, 1.0]);
    compare("equal terms", size, logits, false, [1.0, 2.0]);
}

#[test]
fn a_small_case_by_hand() {
    // Two rows of two classes; the teacher prefers class 1, then class 0.
    let student = vec![0.0, 0.0, 3.0f64.ln(), 0.0];
    let teacher = vec![0.0, 1.0, 4.0f64.ln(), 0.0];
    let of = |hard, tau| {
        let build = move |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Distillation { hard, alpha: 0.5, tau }, x);
        let case = case("by hand", &build, [2, 2], [student.clone(), teacher.clone()]);
        run(&case, &[], 1).outputs[0][0]
    };
    // ln 2 and -ln 3/4, their mean; half of it, and half of the other loss of 1.75.
    let hard = 0.5 * 1.75 + 0.5 * (2.0f64.ln() - 0.75f64.ln()) / 2.0;
    assert!((of(true, 1.0) - hard).abs() < 1e-6, "{}", of(true, 1.0));
    // Divergences of (1/2, 1/2) and (3/4, 1/4) from the teacher's, over 2 x 2 numbers.
    let e = std::f64::consts::E;
    let divergence = |p: [f64; 2], q: [f64; 2]| p[0] * (p[0] / q[0]).ln() + p[1] * (p[1] / q[1]).ln();
    let sum = divergence([1.0 / (1.0 + e), e / (1.0 + e)], [0.5, 0.5]) + divergence([0.8, 0.2], [0.75, 0.25]);
    let soft = 0.5 * 1.75 + 0.5 * sum / 4.0;
    assert!((of(false, 1.0) - soft).abs() < 1e-6, "{}", of(false, 1.0));
}

/// The mean loss is over all micro-steps of a cycle, and so is what stands behind it.
#[test]
fn statistics_are_over_all_micro_steps() {
    let (rows, classes, alpha, tau) = (4, 6, 0.75, 2.0);
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let inputs = [[rows, classes], [rows, classes], [rows, 3]];
    let [x, teacher, targets] = inputs.map(|shape| tape.input("input", shape));
    let other = tape.apply_all(CrossEntropy { smoothing: 0.0 }, &[x, targets]);
    let all = tape.apply_all(Distillation { hard: false, alpha, tau }, &[x, teacher, other[0], other[1]]);
    let pinned = [all[0], all[1], other[1]];
    pinned.iter().for_each(|&tensor| tape.rec.pin(tensor));
    let recording = tape.finish().expect("it is recorded");
    parameters.allocate_blocking(adapter(), &[Role::Weight]).expect("there is nothing to allocate");
    let plan = Plan::compile_blocking(adapter(), recording, &parameters).expect("it compiles");
    let (mut losses, mut hits) = (Vec::new(), 0.0);
    for micro_step in 0..3 {
        let logits = |seed| spread(10 * micro_step + seed, rows * classes, 3.0).into_iter().map(|v| v as f32);
        let (student, taught): (Vec<f32>, Vec<f32>) = (logits(1).collect(), logits(2).collect());
        // Row r belongs to class r.
        let labels: Vec<f32> = (0..rows).flat_map(|row| [row as f32, 0.0, 0.0]).collect();
        let is_hit = |(row, logits): &(usize, &[f32])| logits.iter().all(|&other| other <= logits[*row]);
        hits += student.chunks(classes).enumerate().filter(is_hit).count() as f64;
        let header = Header { micro_step, ..Header::default() };
        let run = plan.run().write(x, &student).write(teacher, &taught).write(targets, &labels).header(header);
        run.steps().submit().expect("it runs");
        losses.push(f64::from(plan.read_blocking(all[0]).expect("it can be read")[0]));
    }
    let found: Vec<f64> = plan.read_blocking(all[1]).expect("it can be read").into_iter().map(f64::from).collect();
    let wanted = [losses.iter().sum::<f64>() / 3.0, hits / 12.0, 12.0];
    assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-6), "{found:?}, not {wanted:?} of {losses:?}");
    assert!(losses[0] != losses[1]);
}
