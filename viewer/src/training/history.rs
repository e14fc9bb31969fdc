//! The curves of a run, kept small however long it is.

use lara_models::train::{Evaluation, Progress};

/// Buckets of a curve before two become one; each gives at most two points.
const MOST_BUCKETS: usize = 1024;

/// Share of the old value in a smoothed curve, a step.
const SMOOTHING: f64 = 0.95;

/// Numbers over steps. A long curve is thinned evenly: stretches of equally many values become their lowest and their
/// highest, so no extreme is ever lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    buckets: Vec<Bucket>,
    /// Values that a full bucket stands for.
    stride: usize,
    last: Option<[f64; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    count: usize,
    low: [f64; 2],
    high: [f64; 2],
}

impl Default for Curve {
    fn default() -> Self {
        Curve { buckets: Vec::new(), stride: 1, last: None }
    }
}

impl Curve {
    /// Adds y at step x, which must not be before the steps so far. What is not finite cannot be drawn and is left out.
    pub fn push(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        self.last = Some([x, y]);
        let new = Bucket { count: 1, low: [x, y], high: [x, y] };
        match self.buckets.last_mut() {
            Some(open) if open.count < self.stride => *open = open.and(new),
            _ => self.buckets.push(new),
        }
        if self.buckets.len() > MOST_BUCKETS {
            self.stride *= 2;
            let pair = |pair: &[Bucket]| pair[1..].iter().fold(pair[0], |sum, next| sum.and(*next));
            self.buckets = self.buckets.chunks(2).map(pair).collect();
        }
    }

    /// The points to draw, in the order of their steps, the newest last: at most 2,049 of them.
    pub fn points(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        let inner = self.buckets.iter().flat_map(|bucket| {
            let (first, second) =
                if bucket.low[0] <= bucket.high[0] { (bucket.low, bucket.high) } else { (bucket.high, bucket.low) };
            [Some(first), (second != first).then_some(second)].into_iter().flatten()
        });
        let newest = self.buckets.last().map(|b| b.low[0].max(b.high[0]));
        let last = self.last.filter(|[x, _]| newest.is_some_and(|newest| *x > newest));
        inner.chain(last)
    }

    /// The newest point: step and value.
    pub fn last(&self) -> Option<[f64; 2]> {
        self.last
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

impl Bucket {
    /// This one and the next as one.
    fn and(self, next: Bucket) -> Bucket {
        Bucket {
            count: self.count + next.count,
            low: if next.low[1] < self.low[1] { next.low } else { self.low },
            high: if next.high[1] > self.high[1] { next.high } else { self.high },
        }
    }
}

/// A curve that follows noisy values: their average with weights that fall by 5 % a step, free of a bias to zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Smoothed {
    /// The averages.
    pub curve: Curve,
    sum: f64,
    weight: f64,
}

impl Smoothed {
    fn push(&mut self, x: f64, y: f64) {
        if y.is_finite() {
            self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * y;
            self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
            self.curve.push(x, self.sum / self.weight);
        }
    }
}

/// What a run reported so far. Steps count from 1; accuracies are shares, 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Loss of each batch.
    pub loss: Curve,
    /// The same, smoothed.
    pub smooth_loss: Smoothed,
    /// Accuracy of each batch.
    pub accuracy: Curve,
    /// The same, smoothed.
    pub smooth_accuracy: Smoothed,
    /// Learning rate.
    pub lr: Curve,
    /// Norm of the gradient before clipping.
    pub grad_norm: Curve,
    /// Loss on the held-out images.
    pub held_out_loss: Curve,
    /// Accuracy on the held-out images.
    pub held_out_accuracy: Curve,
    latest: Option<Progress>,
}

impl History {
    /// Adds a step.
    pub fn record(&mut self, progress: &Progress) {
        let result = &progress.result;
        let x = result.step as f64 + 1.0;
        self.loss.push(x, result.loss);
        self.smooth_loss.push(x, result.loss);
        self.accuracy.push(x, result.accuracy);
        self.smooth_accuracy.push(x, result.accuracy);
        self.lr.push(x, progress.lr);
        self.grad_norm.push(x, result.grad_norm);
        self.latest = Some(*progress);
    }

    /// Adds an evaluation after `step` steps.
    pub fn record_evaluation(&mut self, step: u64, evaluation: &Evaluation) {
        self.held_out_loss.push(step as f64, evaluation.loss);
        self.held_out_accuracy.push(step as f64, evaluation.accuracy);
    }

    /// The newest step.
    pub fn latest(&self) -> Option<&Progress> {
        self.latest.as_ref()
    }

    /// Optimizer steps of the run whose results are in.
    pub fn steps(&self) -> u64 {
        self.latest.map_or(0, |progress| progress.result.step + 1)
    }
}
