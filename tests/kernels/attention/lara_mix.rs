use lara_runtime::attention::LaraMix;
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random};

/// Mixing weights of one matrix, rows of x and r against one number a landmark in the others (spec 1.4, mis-opt).
pub(super) fn mix<R: Real>(alpha: f64, x: &[R], r: &[R], tlse: &[R], balance: &[R], lse: &[R], log_q: &[R]) -> Vec<R> {
    let landmarks = tlse.len();
    let mut y = Vec::with_capacity(x.len());
    for (x, r) in x.chunks(landmarks).zip(r.chunks(landmarks)) {
        let t: Vec<R> = (0..landmarks).map(|c| (r[c] - tlse[c]).exp()).collect();
        let mean = t.iter().fold(R::of(0.0), |sum, &t| sum + t) / R::of(landmarks as f64);
        let logits: Vec<R> = (0..landmarks)
            .map(|c| {
                let a = balance[c] + R::of(alpha) * (t[c] - mean);
                let a = if a.value() > 1e-8 { a } else { R::of(1e-8) };
                a.ln() + x[c] + lse[c] - log_q[c]
            })
            .collect();
        let total = super::lse(&logits);
        y.extend(logits.iter().map(|&l| (l - total).exp()));
    }
    y
}

struct Mix {
    queries: usize,
    landmarks: usize,
    alpha: f64,
}

impl Mix {
    fn clamped(&self, x: &[Vec<f64>]) -> f64 {
        let (mut clamped, per_matrix) = (0, self.queries * self.landmarks);
        for (at, r) in x[1].chunks(self.landmarks).enumerate() {
            let base = at * self.landmarks / per_matrix * self.landmarks;
            let t: Vec<f64> = (0..self.landmarks).map(|c| (r[c] - x[2][base + c]).exp()).collect();
            let mean = t.iter().sum::<f64>() / self.landmarks as f64;
            clamped += (0..self.landmarks).filter(|c| x[3][base + c] + self.alpha * (t[*c] - mean) <= 1e-8).count();
        }
        clamped as f64 / x[1].len() as f64
    }
}

impl Reference for Mix {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (matrix, landmarks) = (self.queries * self.landmarks, self.landmarks);
        let of = |z: usize| {
            let wide = |i: usize| &x[i][z * matrix..(z + 1) * matrix];
            let narrow = |i: usize| &x[i][z * landmarks..(z + 1) * landmarks];
            mix(self.alpha, wide(0), wide(1), narrow(2), narrow(3), narrow(4), narrow(5))
        };
        vec![(0..x[2].len() / landmarks).flat_map(of).collect()]
    }
}

/// Log-sum-exps, and the peaks and sums that they are made of.
fn normalisers(peaks: Vec<f64>, seed: u32) -> [Vec<f64>; 2] {
    let sums: Vec<f64> = random(seed, peaks.len()).into_iter().map(|x| f64::from((2.0 + x) as f32)).collect();
    let both = peaks.iter().zip(&sums);
    [both.clone().map(|(peak, sum)| peak + sum.ln()).collect(), both.flat_map(|(&peak, &sum)| [peak, sum]).collect()]
}

/// x, r and, for each landmark, tlse, balance, lse, log_q, and the peaks and sums of tlse and lse. Logits and log-sum-exps are
/// about as large as `size`, in eighths.
fn inputs([batch, heads, queries, landmarks]: [usize; 4], size: f64) -> Vec<Vec<f64>> {
    let (wide, narrow) = (batch * heads * queries * landmarks, batch * heads * landmarks);
    let eighths =
        |seed, len| -> Vec<f64> { random(seed, len).into_iter().map(|x| size + (16.0 * x).round() / 8.0).collect() };
    let [tlse, over_queries] = normalisers(eighths(3, narrow).into_iter().map(|x| x + 1.0).collect(), 7);
    let [lse, over_keys] = normalisers(eighths(5, narrow), 8);
    let balance = random(4, narrow).into_iter().map(|x| 0.5 + 0.45 * x).collect();
    vec![eighths(1, wide), eighths(2, wide), tlse, balance, lse, eighths(6, narrow), over_queries, over_keys]
}

fn compare(sizes: [usize; 4], alpha: f32, least_clamped: f64) {
    compare_near(0.0, sizes, alpha, least_clamped);
}

fn compare_near(size: f64, sizes @ [batch, heads, queries, landmarks]: [usize; 4], alpha: f32, least_clamped: f64) {
    let reference = Mix { queries, landmarks, alpha: f64::from(alpha) };
    let x = inputs(sizes, size);
    let clamped = reference.clamped(&x);
    assert!(clamped >= least_clamped, "{sizes:?} alpha {alpha}: only {clamped} of the weights are clamped");
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(LaraMix { alpha, has_missing: false }, x)];
    let mut case = Case::new(format!("lara_mix near {size} {sizes:?} alpha {alpha}"), &build).tolerance(1e-5);
    for (i, values) in x.into_iter().enumerate() {
        case = match i {
            0 | 1 => case.variable(sizes, values),
            2..6 => case.variable([batch, heads, landmarks], values),
            _ => case.constant([batch, heads, landmarks, 2], values),
        };
    }
    check(&case, &reference, &[&[]]);
}

const SIZES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [1, 1, 1, 2],
    [2, 3, 5, 7],
    [1, 2, 8, 16],
    [2, 1, 9, 4],
    [1, 1, 65, 49],
    [1, 2, 33, 65],
    [3, 2, 16, 3],
];

#[test]
fn matches_where_weights_are_positive() {
    for sizes in SIZES {
        compare(sizes, 0.0, 0.0);
        compare(sizes, 0.3, 0.0);
    }
}

#[test]
fn clamped_weights_pass_no_gradient() {
    for sizes in SIZES {
        let several = sizes[3] > 1;
        compare(sizes, 6.0, if several && sizes[2] > 4 { 0.1 } else { 0.0 });
    }
}

/// Out of log-sum-exps of 1e4 in f32 weights would be off by 5e-4.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    for sizes in SIZES {
        compare_near(1e4, sizes, 0.3, 0.0);
    }
}
