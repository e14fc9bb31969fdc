//! Randomized attention (Zheng, Wang and Kong, ICML 2022, section 3), composed of differentiable operations.

use super::add_token::AddToken;
use super::gather_keys::GatherKeys;
use super::landmarks::{Landmarks, Pooling};
use super::noise::Noise;
use super::softmax::Shapes;
use super::{Attend, Attention, AttentionConfig, Context, DrawKeys, MechanismKind, Qkv, RealTokens};
use crate::ops::{Layout, MatMul, Residual};
use crate::{Error, Tape, Tensor};

/// Randomized attention: every query n has samples w_ns = mu_ns + noise of its own, and its output is the mean over s
/// of f(w_ns), the attention of w_ns under the feature map phi. With exact noise around drawn keys it is unbiased
/// (spec 1.3).
#[derive(Clone, Debug)]
pub struct Ra {
    config: AttentionConfig,
}

impl Ra {
    /// RA with these settings.
    pub fn new(config: AttentionConfig) -> Self {
        Ra { config }
    }

    /// Samples a query S; the two forms that draw no key have one.
    fn samples(&self) -> usize {
        usize::try_from(self.config.num_samples).unwrap_or(1).max(1)
    }

    /// mu [batch, heads, N S, D].
    fn means(&self, tape: &mut Tape<'_>, Qkv { q, k, .. }: Qkv, context: &Context, ranks: Option<Tensor>) -> Tensor {
        match self.config.num_samples {
            0 => {
                let mean = mean_key(tape, k, context);
                tape.apply(AddToken, &[q, mean])
            }
            -1 => {
                // As values the keys are another input, whose gradient the tape adds to theirs.
                let values = tape.apply(Noise { std: 0.0, stream: 0, ranks: None, samples: 1 }, &[k]);
                let attend = Attend::new(context.scale(q));
                let seen = match context.key_bias(tape, k, None) {
                    Some(bias) => tape.apply_all(attend, &[q, k, values, bias])[0],
                    None => tape.apply_all(attend, &[q, k, values])[0],
                };
                tape.apply(Residual, &[q, seen])
            }
            _ => {
                // Taken even if the index is given, so that the noise is the same either way. At evaluation a block's own:
                // a map of its weights shows what its output was made of, and draws nothing from the blocks after it.
                let next = tape.rec.next_stream();
                let stream = if tape.is_training() { next } else { tape.scope_stream() };
                let index = context.index.unwrap_or_else(|| {
                    let bias = context.key_bias(tape, k, None);
                    let by_batch = tape.is_training();
                    let draw = DrawKeys { samples: self.samples(), stream, by_batch, ranks };
                    Attend::new(context.scale(q)).draw(&mut tape.rec, [q, k], bias, draw)
                });
                tape.apply(GatherKeys { samples: self.samples() }, &[q, k, index])
            }
        }
    }

    /// w [batch, heads, N S, D].
    fn proposals(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        let mask = context.hidden_queries(self.config.padding, qkv.q);
        let sizes = [qkv.q.dims()[0], qkv.q.dims()[2]];
        let ranks = mask.map(|mask| RealTokens::record(&mut tape.rec, mask, sizes).ranks);
        let means = self.means(tape, qkv, context, ranks);
        let (std, stream) = (self.config.noise_std(tape.draws_noise(), qkv.q.last()), tape.rec.next_stream());
        match context.noise_for(tape, MechanismKind::Ra, means) {
            Some(given) => tape.apply(Residual, &[means, given]),
            None if std == 0.0 => means,
            None => tape.apply(Noise { std, stream, ranks, samples: self.samples() }, &[means]),
        }
    }

    /// The mean over each query's samples: x [batch, heads, N S, width] -> [batch, heads, N, width].
    fn over_samples(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        if self.samples() == 1 {
            return x;
        }
        let pooling = Pooling::Segments { tokens: x.dims()[2], landmarks: x.dims()[2] / self.samples() };
        tape.apply(Landmarks { prefix: 0, pooling }, &[x])
    }
}

/// The mean of the keys that are no padding [batch, heads, 1, D]; zeros where there are none.
fn mean_key(tape: &mut Tape<'_>, k: Tensor, context: &Context) -> Tensor {
    let [batch, heads, keys, channels] = [0, 1, 2, 3].map(|i| k.dims()[i]);
    let shapes = Shapes { batch: batch * heads, queries: 1, keys, channels, scale: 1.0, causal: false };
    let bias = context.key_bias(tape, k, None);
    let shares = shapes.shares(&mut tape.rec, bias).reshape([batch, heads, 1, keys]);
    tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[shares, k])
}

/// Whether q and k fit together, so that what is composed of them can be recorded.
fn fits(tape: &mut Tape<'_>, Qkv { q, k, .. }: Qkv) -> bool {
    let (a, b) = (q.dims(), k.dims());
    let fits = a.len() == 4 && b.len() == 4 && a[..2] == b[..2] && a[3] == b[3];
    if !fits {
        let (q, k) = (q.shape(), k.shape());
        tape.rec.fail(Error::Shape(format!("queries {q} and keys {k} do not fit together")));
    }
    fits
}

impl Attention for Ra {
    fn attend(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Ra);
        if !fits(tape, qkv) {
            return qkv.q;
        }
        let w = self.proposals(tape, qkv, context);
        let bias = context.feature_bias(tape, qkv.k);
        let seen = tape.apply_all(Attend::new(context.scale(qkv.q)), &[w, qkv.k, qkv.v, bias])[0];
        let out = self.over_samples(tape, seen);
        context.without_hidden(tape, self.config.padding, qkv.q, out)
    }

    /// The mean over s of softmax_m(phi(k_m, w_ns)). While training another recording draws other keys: to see the weights
    /// of an output, give both the same `index` (and `noise`). Otherwise keys are those of the output.
    fn weights(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Ra);
        if !fits(tape, qkv) {
            return qkv.q;
        }
        let w = self.proposals(tape, qkv, context);
        let bias = context.feature_bias(tape, qkv.k);
        let seen = Attend::new(context.scale(qkv.q)).probabilities(&mut tape.rec, w, qkv.k, Some(bias));
        let weights = self.over_samples(tape, seen);
        context.without_hidden(tape, self.config.padding, qkv.q, weights)
    }
}
