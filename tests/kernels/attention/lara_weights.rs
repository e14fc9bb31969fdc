use lara_runtime::attention::LaraWeights;
use lara_tests::{Case, Real, Reference, check, random};

struct Weights {
    landmarks: usize,
}

impl Reference for Weights {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let landmarks = self.landmarks;
        let (mut balance, mut log_q) = (Vec::new(), Vec::new());
        for (g, norm) in x[0].chunks(landmarks * landmarks).zip(x[1].chunks(landmarks)) {
            for (c, row) in g.chunks(landmarks).enumerate() {
                let m: Vec<R> = row.iter().zip(norm).map(|(&g, &n)| g + n).collect();
                balance.push((m[c] - super::lse(&m)).exp());
                log_q.push(m[c]);
            }
        }
        vec![balance, log_q]
    }
}

#[test]
fn weighs_proposals_against_each_other() {
    for [batch, heads, landmarks] in [[1, 1, 1], [1, 1, 2], [2, 3, 5], [1, 2, 16], [3, 1, 49], [1, 1, 64], [1, 1, 65]] {
        for seeded in [&[0, 1][..], &[0], &[1]] {
            let name = format!("lara_weights {batch} {heads} {landmarks} gradients of {seeded:?}");
            let g = random(1, batch * heads * landmarks * landmarks).into_iter().map(|g| 2.0 * g).collect();
            let norm = random(2, batch * heads * landmarks).into_iter().map(|n| n - 1.0).collect();
            let case = Case::new(name, &|tape, x| tape.apply_all(LaraWeights, x))
                .variable([batch, heads, landmarks, landmarks], g)
                .variable([batch, heads, landmarks], norm)
                .gradients_of(seeded);
            check(&case, &Weights { landmarks }, &[&[]]);
        }
    }
}

/// Features of 1e4 in size that differ by little, exact in f32: out of their log-sum-exp balances would be off by 5e-4.
#[test]
fn features_of_ten_thousand_cost_no_digits() {
    let eighths = |seed, len| random(seed, len).into_iter().map(|x| (16.0 * x).round() / 8.0);
    for [batch, heads, landmarks] in [[1, 2, 5], [2, 1, 49]] {
        let case = Case::new(format!("lara_weights near 1e4 {landmarks}"), &|tape, x| tape.apply_all(LaraWeights, x))
            .variable(
                [batch, heads, landmarks, landmarks],
                eighths(1, batch * heads * landmarks * landmarks).map(|g| 5e3 + g).collect(),
            )
            .variable([batch, heads, landmarks], eighths(2, batch * heads * landmarks).map(|n| 5e3 + n).collect())
            .gradients_of(&[0]);
        check(&case, &Weights { landmarks }, &[&[]]);
    }
}
