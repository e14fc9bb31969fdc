//! Random feature attention in log form (paper, section 2.2; spec 1.2): self-normalised importance sampling from N(0, I).

use super::broadcast::Broadcast;
use super::projection::projection;
use super::{Attend, AttendApart, Attention, AttentionConfig, Context, MechanismKind, Qkv, RelativeLse};
use crate::ops::{Layout, MatMul};
use crate::{Tape, Tensor};

/// RFA with S positive features: O(S (N + M)) time, no matrix of N x S numbers.
#[derive(Clone, Debug)]
pub struct Rfa {
    config: AttentionConfig,
}

impl Rfa {
    /// RFA with these settings.
    pub fn new(config: AttentionConfig) -> Self {
        Rfa { config }
    }

    /// The samples [batch, heads, S, D] in the code's units, d^(1/4) times the paper's.
    fn samples(&self, tape: &mut Tape<'_>, q: Tensor, context: &Context) -> Tensor {
        let shared = projection(tape, &self.config, context, q);
        let factor = (q.last() as f32).powf(0.25);
        tape.apply(Broadcast { batch: q.dims()[0], factor }, &[shared])
    }
}

impl Attention for Rfa {
    /// out_n = sum_s softmax_s(s w_s.q_n + LSE_m phi(k_m, w_s)) f(w_s); the term -(s/2)|q_n|^2 is the same for every s.
    fn attend(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Rfa);
        let scale = context.scale(q);
        let samples = self.samples(tape, q, context);
        let bias = context.feature_bias(tape, k);
        let seen = tape.apply_all(AttendApart(Attend::new(scale)), &[samples, k, v, bias]);
        // If every key is masked this is the mask's number, which hides the sample, and so nothing comes out.
        let bias = tape.apply(RelativeLse, &[seen[1], seen[2]]);
        let out = tape.apply(Attend::new(scale), &[q, samples, seen[0], bias]);
        context.without_hidden(tape, self.config.padding, q, out)
    }

    fn weights(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Rfa);
        let attend = Attend::new(context.scale(q));
        let samples = self.samples(tape, q, context);
        let bias = context.feature_bias(tape, k);
        let seen = tape.apply_all(AttendApart(Attend::new(attend.scale)), &[samples, k, v, bias]);
        let relative = tape.apply(RelativeLse, &[seen[1], seen[2]]);
        let mix = attend.probabilities(&mut tape.rec, q, samples, Some(relative));
        let seen = attend.probabilities(&mut tape.rec, samples, k, Some(bias));
        let weights = tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[mix, seen]);
        context.without_hidden(tape, self.config.padding, q, weights)
    }
}
