//! Feature maps of the Performer family as the authors released them (spec 1.8 and 3).

use lara_shaders::PERFORMER_FEATURES;

use super::mask::{MASKED, Mask};
use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: x [batch, heads, N, width] and, for `Favorp` and `Fourier`, norm [batch, heads, N], norm_n = -|x~_n|^2 / 2 in
/// the paper's units. Output: features [batch, heads, N, features]. Maxima pass no gradient on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PerformerFeatures {
    /// factor exp(x + norm - max x) + eps.
    Favorp {
        /// Multiplies the exponentials, S^(-1/2).
        factor: f32,
        /// Added to every feature.
        eps: f32,
        /// The largest x of each token, for queries; otherwise that of all tokens, for keys.
        per_token: bool,
        /// [batch, N], 1 where a token does not count for the maximum.
        padding: Option<Tensor>,
    },
    /// factor exp(-norm - max(-norm)) [sin x, cos x], the maximum over all tokens: 2 width features. The norm may be left
    /// out, for waves of amplitude `factor`.
    Fourier {
        /// Multiplies the waves, S^(-1/2).
        factor: f32,
        /// [cos x, sin x] instead.
        cos_first: bool,
        /// [batch, N], 1 where a token does not count for the maximum.
        padding: Option<Tensor>,
    },
    /// max(factor x, 0) + eps.
    Relu {
        /// Multiplies x; at least 0.
        factor: f32,
        /// Added to every feature.
        eps: f32,
    },
    /// 1 / (1 + exp(-x)) + eps.
    Sigmoid {
        /// Added to every feature.
        eps: f32,
    },
    /// r_i r_(i - j) for j = 1 ..= shifts and r = max([x, -x], 0), rolled around: 2 width shifts features.
    Dpfp {
        /// Number of rolled copies.
        shifts: usize,
    },
    /// [x cos a, x sin a] with a = (pi / 2) n / N for token n from 0 (cosFormer), 2 width features.
    Positions {
        /// Real tokens before each token [batch, N + 1], if n and N count real ones only.
        ranks: Option<Tensor>,
    },
}

/// Numbers of `params` that differ between the maps.
#[derive(Clone, Copy, Default)]
struct Numbers {
    factor: f32,
    eps: f32,
    shifts: usize,
    cos_first: bool,
    per_peak: usize,
    sign: f32,
}

impl PerformerFeatures {
    /// Entry points of forward and backward.
    fn entries(&self) -> [&'static str; 2] {
        match self {
            PerformerFeatures::Favorp { .. } => ["favorp", "favorp_backward"],
            PerformerFeatures::Fourier { .. } => ["waves", "waves_backward"],
            PerformerFeatures::Relu { .. } => ["relu", "relu_backward"],
            PerformerFeatures::Sigmoid { .. } => ["sigmoid", "sigmoid_backward"],
            PerformerFeatures::Dpfp { .. } => ["dpfp", "dpfp_backward"],
            PerformerFeatures::Positions { .. } => ["positions", "positions_backward"],
        }
    }

    fn features(&self, width: usize) -> usize {
        match *self {
            PerformerFeatures::Fourier { .. } | PerformerFeatures::Positions { .. } => 2 * width,
            PerformerFeatures::Dpfp { shifts } => 2 * width * shifts,
            _ => width,
        }
    }

    fn has_padding(&self) -> bool {
        match self {
            PerformerFeatures::Favorp { padding, .. } | PerformerFeatures::Fourier { padding, .. } => padding.is_some(),
            PerformerFeatures::Positions { ranks } => ranks.is_some(),
            _ => false,
        }
    }

    fn has_norm(&self) -> bool {
        matches!(self, PerformerFeatures::Favorp { .. } | PerformerFeatures::Fourier { .. })
    }

    fn numbers(&self, tokens: usize) -> Numbers {
        let common = Numbers { factor: 1.0, per_peak: tokens, sign: 1.0, ..Numbers::default() };
        match *self {
            PerformerFeatures::Favorp { factor, eps, per_token, .. } => {
                Numbers { factor, eps, per_peak: if per_token { 1 } else { tokens }, ..common }
            }
            PerformerFeatures::Fourier { factor, cos_first, .. } => Numbers { factor, cos_first, sign: -1.0, ..common },
            PerformerFeatures::Relu { factor, eps } => Numbers { factor, eps, ..common },
            PerformerFeatures::Sigmoid { eps } => Numbers { eps, ..common },
            PerformerFeatures::Dpfp { shifts } => Numbers { shifts, ..common },
            PerformerFeatures::Positions { .. } => common,
        }
    }

    fn sizes<'r>(&self, step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
        let tokens = x.dims()[2];
        let numbers = self.numbers(tokens);
        step.constant("HAS_PADDING", if self.has_padding() { 1.0 } else { 0.0 })
            .uint("heads", x.dims()[1])
            .uint("rows", x.rows())
            .uint("width", x.last())
            .uint("tokens", tokens)
            .uint("per_peak", numbers.per_peak)
            .uint("shifts", numbers.shifts)
            .flag("cos_first", numbers.cos_first)
            .float("factor", numbers.factor)
            .float("eps", numbers.eps)
            .float("sign", numbers.sign)
            .flag("accumulate", accumulate)
    }

    /// What the exponents are lowered by: for each token or for each matrix.
    fn peaks(&self, rec: &mut Recorder, x: Tensor, norm: Tensor) -> Tensor {
        let (rows, tokens) = (x.rows(), x.dims()[2]);
        let column = if let PerformerFeatures::Favorp { per_token, .. } = *self {
            let peaks = rec.scratch("largest of each token", &x.dims()[..3]);
            let step = rec.step(&PERFORMER_FEATURES, "row_peak").bind("x", x).bind("peaks", peaks);
            self.sizes(step, x, false).dispatch_items(rows);
            if per_token {
                return peaks;
            }
            peaks
        } else {
            norm
        };
        // A padded token's is made the smallest, so that no other follows from it.
        let column = match *self {
            PerformerFeatures::Favorp { padding: Some(padding), .. } => hidden(rec, column, padding, MASKED),
            PerformerFeatures::Fourier { padding: Some(padding), .. } => hidden(rec, column, padding, -MASKED),
            _ => column,
        };
        let peaks = rec.scratch("largest of all tokens", &x.dims()[..2]);
        let step = rec.step(&PERFORMER_FEATURES, "matrix_peak").bind("x", column).bind("peaks", peaks);
        self.sizes(step, x, false).dispatch_groups(rows / tokens);
        peaks
    }
}

/// A column of numbers [batch, heads, N] with `fill` at padded tokens.
fn hidden(rec: &mut Recorder, column: Tensor, padding: Tensor, fill: f32) -> Tensor {
    Mask { fill }.forward(rec, &[column, padding]).y[0]
}

impl Op for PerformerFeatures {
    fn name(&self) -> &'static str {
        "performer_features"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let data = x[0];
        let &[batch, heads, tokens, width] = data.dims() else {
            rec.fail(Error::Shape(format!("features are made of [batch, heads, N, width], not of {}", data.shape())));
            return Forward::one(data);
        };
        let norm = x.get(1).copied();
        let saved = if self.has_norm() {
            // Without norms the amplitude is 1: those of zero vectors.
            let norm = norm.unwrap_or_else(|| {
                let zeros = rec.scratch("no norms", [batch, heads, tokens]);
                crate::ops::fill(rec, zeros, 0.0);
                zeros
            });
            vec![norm, self.peaks(rec, data, norm)]
        } else {
            vec![]
        };
        let y = rec.scratch("features", [batch, heads, tokens, self.features(width)]);
        let mut step = rec.step(&PERFORMER_FEATURES, self.entries()[0]).bind("x", data).bind("y", y);
        if let [norm, peak] = saved[..] {
            step = step.bind("norm", norm).bind("peak", peak);
        }
        if let PerformerFeatures::Positions { ranks } = *self {
            step = step.bind_or_absent("ranks", ranks);
        }
        let items = if self.entries()[0] == "waves" { data.len() } else { y.len() };
        self.sizes(step, data, false).dispatch_items(items);
        Forward { y: vec![y], saved }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (Some(dy), x) = (pass.dy[0], pass.x[0]) else { return };
        if let Some(slot) = pass.dx[0] {
            let mut step = rec.step(&PERFORMER_FEATURES, self.entries()[1]).bind("dy", dy).bind("dx", slot.grad);
            // Places are known without the values.
            step = match *self {
                PerformerFeatures::Positions { ranks } => step.bind_or_absent("ranks", ranks),
                _ => step.bind("x", x),
            };
            if let [norm, peak] = *pass.saved {
                step = step.bind("norm", norm).bind("peak", peak);
            }
            self.sizes(step, x, slot.accumulate).dispatch_items(x.len());
        }
        if let (Some(slot), [norm, peak]) = (pass.dx.get(1).copied().flatten(), pass.saved) {
            let entry = if self.entries()[0] == "favorp" { "favorp_norm" } else { "waves_norm" };
            let step = rec.step(&PERFORMER_FEATURES, entry).bind("x", x).bind("norm", *norm).bind("peak", *peak);
            let step = step.bind("dy", dy).bind("dnorm", slot.grad);
            self.sizes(step, x, slot.accumulate).dispatch_items(x.rows());
        }
    }
}
