//! Linear randomized attention (Zheng, Wang and Kong, ICML 2022, section 4), composed of differentiable operations.

use super::column_lse::ColumnLse;
use super::key_norms::KeyNorms;
use super::landmarks::Landmarks;
use super::lara_mix::LaraMix;
use super::lara_weights::LaraWeights;
use super::noise::Perturb;
use super::{Attend, Attention, AttentionConfig, Context, Noise, ProposalGen, Qkv};
use crate::ops::{LayerNorm, Layout, Linear, MatMul, Residual};
use crate::{Init, Tape, Tensor};

/// LARA with `mis-opt` weights.
#[derive(Clone, Debug)]
pub struct Lara {
    config: AttentionConfig,
}

/// Epsilon of the landmark generators' LayerNorm (the released code's default).
const LANDMARK_EPS: f32 = 1e-5;

impl Lara {
    /// LARA with these settings.
    pub fn new(config: AttentionConfig) -> Self {
        Lara { config }
    }

    /// Landmarks of queries or keys: pooled and, for `pool`, put through a Linear and a LayerNorm that all heads share.
    fn landmarks(&self, tape: &mut Tape<'_>, name: &str, x: Tensor, context: &Context) -> Tensor {
        let pooling = match context.grid {
            super::Grid::Plane(grid) => super::Pooling::Grid { grid, side: self.config.num_landmarks.isqrt().max(1) },
            _ => {
                let tokens = x.dims()[2] - context.prefix;
                super::Pooling::Segments { tokens, landmarks: self.config.num_landmarks.min(tokens).max(1) }
            }
        };
        let pooled = tape.apply(Landmarks { prefix: context.prefix, pooling }, &[x]);
        if self.config.proposal_gen == ProposalGen::NoParamPool {
            return pooled;
        }
        let dim = x.last();
        tape.scope(name, |tape| {
            let weight = tape.parameter("linear.weight", [dim, dim], Init::TruncNormal(0.02));
            let bias = tape.parameter("linear.bias", [dim], Init::Zeros);
            let projected = tape.apply(Linear, &[pooled, weight, bias]);
            let gain = tape.parameter("norm.weight", [dim], Init::Ones);
            let shift = tape.parameter("norm.bias", [dim], Init::Zeros);
            tape.apply(LayerNorm { eps: LANDMARK_EPS }, &[projected, gain, shift])
        })
    }

    fn noise_std(&self, tape: &Tape<'_>, dim: usize) -> f32 {
        match self.config.noise {
            _ if !tape.is_training() => 0.0,
            Noise::Released => 1.0,
            Noise::Exact => (dim as f32).powf(0.25),
            Noise::None => 0.0,
        }
    }
}

/// The proposals and what they see of the keys: everything of size C.
struct Proposals {
    queries: Tensor,
    samples: Tensor,
    values: Tensor,
    lse: Tensor,
    balance: Tensor,
    log_q: Tensor,
}

impl Lara {
    fn proposals(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Proposals {
        let scale = context.scale(q);
        let queries = self.landmarks(tape, "q_landmarks", q, context);
        let keys = self.landmarks(tape, "k_landmarks", k, context);
        let means = tape.apply(Residual, &[queries, keys]);
        let noise = Perturb { std: self.noise_std(tape, q.last()), stream: tape.rec.next_stream() };
        let samples = match context.noise {
            Some(given) => tape.apply(Residual, &[means, given]),
            None => tape.apply(noise, &[means]),
        };
        let key_norms = tape.apply(KeyNorms { scale }, &[k]);
        let seen = tape.apply_all(Attend::new(scale), &[samples, k, v, key_norms]);
        let mean_norms = tape.apply(KeyNorms { scale }, &[means]);
        let products = tape.apply(MatMul { layout: Layout::Nt, scale }, &[samples, means]);
        let weights = tape.apply_all(LaraWeights, &[products, mean_norms]);
        Proposals { queries, samples, values: seen[0], lse: seen[1], balance: weights[0], log_q: weights[1] }
    }
}

impl Lara {
    /// Mixing weights of the proposals for every query [batch, heads, N, C].
    fn mix(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context, proposals: &Proposals) -> Tensor {
        let scale = context.scale(qkv.q);
        let to_samples = tape.apply(MatMul { layout: Layout::Nt, scale }, &[qkv.q, proposals.samples]);
        let to_queries = tape.apply(MatMul { layout: Layout::Nt, scale }, &[qkv.q, proposals.queries]);
        let over_queries = tape.apply(ColumnLse, &[to_queries]);
        let Proposals { lse, balance, log_q, .. } = *proposals;
        let mix = LaraMix { alpha: self.config.alpha_coeff };
        tape.apply(mix, &[to_samples, to_queries, over_queries, balance, lse, log_q])
    }
}

impl Attention for Lara {
    fn attend(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        let proposals = self.proposals(tape, qkv, context);
        let mix = self.mix(tape, qkv, context, &proposals);
        tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[mix, proposals.values])
    }

    /// A_eff[n, m] = sum_c mix_nc softmax_m(phi(k_m, w_c)) (spec 1.4).
    fn weights(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        let scale = context.scale(qkv.q);
        let proposals = self.proposals(tape, qkv, context);
        let mix = self.mix(tape, qkv, context, &proposals);
        let key_norms = tape.apply(KeyNorms { scale }, &[qkv.k]);
        let seen = Attend::new(scale).probabilities(&mut tape.rec, proposals.samples, qkv.k, Some(key_norms));
        tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[mix, seen])
    }
}
