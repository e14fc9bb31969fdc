//! Linear randomized attention (Zheng, Wang and Kong, ICML 2022, section 4), composed of differentiable operations.

use super::landmark_generator::{Generated, generate};
use super::{
    Attend, AttendApart, Attention, AttentionConfig, ColumnLse, Context, Grid, JoinTokens, KeyNorms, LaraMix,
    LaraWeights, MASKED, Mask, MechanismKind, MisType, Noise, Padding, Qkv, RealLandmarks, RealTokens, RelativeLse,
};
use crate::ops::{Difference, Layout, MatMul, Residual};
use crate::{Tape, Tensor};

/// LARA with all its weightings.
#[derive(Clone, Debug)]
pub struct Lara {
    config: AttentionConfig,
}

impl Lara {
    /// LARA with these settings.
    pub fn new(config: AttentionConfig) -> Self {
        Lara { config }
    }

    /// Whether every proposal has two samples: while training, or when their noise is given.
    fn is_doubled(&self, tape: &Tape<'_>, context: &Context) -> bool {
        let c = &self.config;
        (c.use_multisample || c.use_antithetics) && (tape.draws_noise() || context.noise.is_some())
    }

    /// Means and samples of the proposals, and the query landmarks, as often as there are samples.
    fn sample(&self, tape: &mut Tape<'_>, landmarks: Generated, context: &Context) -> Sampled {
        let means = tape.apply(Residual, &[landmarks.queries, landmarks.keys]);
        let std = self.config.noise_std(tape.draws_noise(), means.last());
        let stream = tape.rec.next_stream();
        let real = landmarks.real;
        let noisy =
            |tape: &mut Tape<'_>, means: Tensor, sign: f32| match context.noise_for(tape, MechanismKind::Lara, means) {
                Some(given) if sign > 0.0 => tape.apply(Residual, &[means, given]),
                Some(given) => tape.apply(Difference, &[means, given]),
                None => {
                    let ranks = real.filter(|_| std != 0.0).map(|real| ranks_of(tape, &real, means));
                    tape.apply(Noise { std: sign * std, stream, ranks, samples: 1 }, &[means])
                }
            };
        if !self.is_doubled(tape, context) {
            let samples = noisy(tape, means, 1.0);
            return Sampled { queries: landmarks.queries, means, samples, real };
        }
        let twice = |tape: &mut Tape<'_>, x: Tensor| tape.apply(JoinTokens { repeat: 2 }, &[x]);
        let (queries, doubled) = (twice(tape, landmarks.queries), twice(tape, means));
        let samples = if self.config.use_multisample {
            noisy(tape, doubled, 1.0)
        } else {
            let pair = [noisy(tape, means, 1.0), noisy(tape, means, -1.0)];
            tape.apply(JoinTokens { repeat: 1 }, &pair)
        };
        Sampled { queries, means: doubled, samples, real }
    }

    fn proposals(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Proposals {
        let scale = context.scale(qkv.q);
        let landmarks = tape.constant_when_inspecting(qkv.v, |tape| generate(tape, &self.config, qkv, context));
        let Sampled { queries, means, samples, real } = self.sample(tape, landmarks, context);
        let bias = context.feature_bias(tape, qkv.k);
        let seen = tape.apply_all(AttendApart(Attend::new(scale)), &[samples, qkv.k, qkv.v, bias]);
        let missing = real.map(|real| real.missing_of(means));
        let norms = tape.apply(KeyNorms { scale }, &[means]);
        let mean_norms = missing.map_or(norms, |missing| tape.apply(Mask { fill: MASKED }, &[norms, missing]));
        Proposals { queries, means, samples, mean_norms, values: seen[0], lse: [seen[1], seen[2]], missing }
    }

    /// `mis-opt`: mixing weights of the proposals for every query [batch, heads, N, C].
    fn mix(&self, tape: &mut Tape<'_>, q: Tensor, context: &Context, p: &Proposals) -> Tensor {
        let scale = context.scale(q);
        let products = tape.apply(MatMul { layout: Layout::Nt, scale }, &[p.samples, p.means]);
        let weights = tape.apply_all(LaraWeights, &[products, p.mean_norms]);
        let to_samples = tape.apply(MatMul { layout: Layout::Nt, scale }, &[q, p.samples]);
        let mut to_queries = tape.apply(MatMul { layout: Layout::Nt, scale }, &[q, p.queries]);
        if let Some(mask) = context.hidden_queries(self.config.padding, q) {
            to_queries = tape.apply(Mask { fill: MASKED }, &[to_queries, mask]);
        }
        let over_queries = tape.apply_all(ColumnLse, &[to_queries]);
        let mix = LaraMix { alpha: self.config.alpha_coeff, has_missing: p.missing.is_some() };
        let [lse, over_keys] = p.lse;
        tape.apply(
            mix,
            &[to_samples, to_queries, over_queries[0], weights[0], lse, weights[1], over_queries[1], over_keys],
        )
    }

    /// `mis-bh` and `mis-biased`: the read-out is attention of the queries to C keys with an additive term (spec 1.4).
    fn read_out(&self, tape: &mut Tape<'_>, scale: f32, p: &Proposals) -> [Tensor; 2] {
        // The log-sum-exp over the means of what a sample sees of them; the values do not matter.
        let means = [p.samples, p.means, p.queries, p.mean_norms];
        let log_q = tape.apply_all(AttendApart(Attend::new(scale)), &means);
        let [lse, over_keys] = p.lse;
        let bias = tape.apply(RelativeLse, &[lse, over_keys, log_q[1], log_q[2]]);
        let bias = p.missing.map_or(bias, |missing| tape.apply(Mask { fill: MASKED }, &[bias, missing]));
        let probes = match self.config.mis_type {
            MisType::MisBiased => tape.apply(Residual, &[p.samples, p.means]),
            _ => p.samples,
        };
        [probes, bias]
    }

    /// The authors' treatment of padding: on sequences padded tokens count as zero vectors, on grids masks are ignored.
    fn as_released(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> (Qkv, Context) {
        let mut context = context.clone();
        let Some(mask) = context.key_padding_mask.filter(|_| self.config.padding == Padding::Released) else {
            return (qkv, context);
        };
        if context.grid != Grid::Sequence {
            context.key_padding_mask = None;
            return (qkv, context);
        }
        let q = match context.queries_mask(qkv.q) {
            Some(mask) => tape.apply(Mask { fill: 0.0 }, &[qkv.q, mask]),
            None => qkv.q,
        };
        let [k, v] = [qkv.k, qkv.v].map(|x| tape.apply(Mask { fill: 0.0 }, &[x, mask]));
        (Qkv { q, k, v }, context)
    }
}

/// Query landmarks, means and samples, all [batch, heads, C, D] (2 C of them when doubled).
struct Sampled {
    queries: Tensor,
    means: Tensor,
    samples: Tensor,
    real: Option<RealLandmarks>,
}

/// Numbers of the proposals that a sample has, for the generator.
fn ranks_of(tape: &mut Tape<'_>, real: &RealLandmarks, means: Tensor) -> Tensor {
    let missing = real.missing_of(means);
    RealTokens::record(&mut tape.rec, missing, [missing.dims()[0], missing.last()]).ranks
}

/// The proposals and what they see of the keys: everything of size C.
struct Proposals {
    queries: Tensor,
    means: Tensor,
    samples: Tensor,
    mean_norms: Tensor,
    values: Tensor,
    /// The keys' log-sum-exp, and the same as peak and sum.
    lse: [Tensor; 2],
    /// 1 where a proposal is missing, if some of the tokens are padding.
    missing: Option<Tensor>,
}

impl Attention for Lara {
    fn attend(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Lara);
        let (qkv, context) = self.as_released(tape, qkv, context);
        let p = self.proposals(tape, qkv, &context);
        let out = if self.config.mis_type == MisType::MisOpt {
            let mix = self.mix(tape, qkv.q, &context, &p);
            tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[mix, p.values])
        } else {
            let scale = context.scale(qkv.q);
            let [probes, bias] = self.read_out(tape, scale, &p);
            tape.apply_all(Attend::new(scale), &[qkv.q, probes, p.values, bias])[0]
        };
        context.without_hidden(tape, self.config.padding, qkv.q, out)
    }

    /// A_eff[n, m] = sum_c mix_nc softmax_m(phi(k_m, w_c)) (spec 1.4).
    fn weights(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Lara);
        let (qkv, context) = self.as_released(tape, qkv, context);
        let scale = context.scale(qkv.q);
        let p = self.proposals(tape, qkv, &context);
        let mix = if self.config.mis_type == MisType::MisOpt {
            self.mix(tape, qkv.q, &context, &p)
        } else {
            let [probes, bias] = self.read_out(tape, scale, &p);
            Attend::new(scale).probabilities(&mut tape.rec, qkv.q, probes, Some(bias))
        };
        let bias = context.feature_bias(tape, qkv.k);
        let seen = Attend::new(scale).probabilities(&mut tape.rec, p.samples, qkv.k, Some(bias));
        let weights = tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[mix, seen]);
        context.without_hidden(tape, self.config.padding, qkv.q, weights)
    }
}
