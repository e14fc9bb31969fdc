//! Performer and its relatives as the authors released them (spec 1.8 and 3), composed of differentiable operations.

use super::projection::projection;
use super::{
    Attention, AttentionConfig, Broadcast, Context, Divide, FeatureMap, KeyNorms, Mask, MechanismKind,
    PerformerFeatures, Qkv, RealTokens,
};
use crate::ops::{Layout, Linear, MatMul, fill};
use crate::{Error, Init, Tape, Tensor};

/// Linear attention psi(Q) (psi(K)^T V) / max(psi(Q) sum_m psi(k_m), 0.01) with a feature map psi: O(F (N + M)) time.
///
/// The constants below make it another estimator than [`super::Rfa`], which has none.
#[derive(Clone, Debug)]
pub struct Performer {
    config: AttentionConfig,
}

/// Added to every feature, by feature map.
const FAVORP_EPS: f32 = 1e-4;
const RELU_EPS: f32 = 1e-3;
const PLAIN_EPS: f32 = 0.1;

/// The smallest normaliser.
const SMALLEST: f32 = 1e-2;

/// Standard deviation of initial weights of `mlp-fourier`.
const INITIAL: f32 = 0.02;

/// Which side of the attention features are for: it decides on the tokens that share a maximum.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Queries,
    Keys,
}

impl Performer {
    /// Performer with these settings.
    pub fn new(config: AttentionConfig) -> Self {
        Performer { config }
    }

    /// The matrix [batch, heads, S, D] that tokens are multiplied with, if the feature map has one.
    fn directions(&self, tape: &mut Tape<'_>, q: Tensor, context: &Context) -> Option<Tensor> {
        let shared = match self.config.kernel {
            FeatureMap::Favorp | FeatureMap::Fourier | FeatureMap::Relu => projection(tape, &self.config, context, q),
            FeatureMap::MlpFourier => {
                let (heads, features, dim) = (q.dims()[1], self.config.features, q.last());
                if features % 2 == 1 {
                    let what =
                        format!("mlp-fourier makes pairs of features, and {features} is odd; take an even number");
                    tape.rec.fail(Error::Shape(what));
                }
                tape.parameter("projection", [heads, features.div_ceil(2), dim], Init::TruncNormal(INITIAL))
            }
            FeatureMap::ReluOnly | FeatureMap::SigmoidOnly | FeatureMap::Dpfp => return None,
        };
        Some(tape.apply(Broadcast { batch: q.dims()[0], factor: 1.0 }, &[shared]))
    }

    /// Products [batch, heads, tokens, S] of tokens and directions in the paper's units.
    fn products(&self, tape: &mut Tape<'_>, x: Tensor, directions: Tensor) -> Tensor {
        tape.apply(MatMul { layout: Layout::Nt, scale: (x.last() as f32).powf(-0.25) }, &[x, directions])
    }

    /// -|x~|^2 / 2 of tokens in the paper's units.
    fn norms(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        tape.apply(KeyNorms { scale: (x.last() as f32).sqrt().recip() }, &[x])
    }

    /// relu(Linear([cos, sin](x.w) / sqrt d)), learned, and the same for queries and keys.
    fn learned(&self, tape: &mut Tape<'_>, x: Tensor, directions: Tensor) -> Tensor {
        let products = tape.apply(MatMul { layout: Layout::Nt, scale: 1.0 }, &[x, directions]);
        let factor = (x.last() as f32).sqrt().recip();
        let waves = tape.apply(PerformerFeatures::Fourier { factor, cos_first: true, padding: None }, &[products]);
        let width = waves.last();
        let weight = tape.parameter("features.weight", [width, width], Init::TruncNormal(INITIAL));
        let bias = tape.parameter("features.bias", [width], Init::Zeros);
        let mixed = tape.apply(Linear, &[waves, weight, bias]);
        tape.apply(PerformerFeatures::Relu { factor: 1.0, eps: 0.0 }, &[mixed])
    }

    /// Deterministic products of rectified channels (Schlag et al. 2021).
    fn rolled(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let (features, dim) = (self.config.features, x.last());
        let shifts = features / dim / 2;
        if shifts == 0 {
            let least = 2 * dim;
            tape.rec.fail(Error::Shape(format!(
                "dpfp with heads of dimension {dim} needs features of at least {least} (a multiple of it), not {features}"
            )));
        }
        tape.apply(PerformerFeatures::Dpfp { shifts: shifts.max(1) }, &[x])
    }

    /// Features [batch, heads, tokens, F]; tokens that `padding` hides count for no maximum and no place.
    fn features(
        &self,
        tape: &mut Tape<'_>,
        x: Tensor,
        directions: Option<Tensor>,
        (side, padding): (Side, Option<Tensor>),
    ) -> Tensor {
        let share = |directions: Tensor| (directions.dims()[2] as f32).sqrt().recip();
        let features = match (self.config.kernel, directions) {
            (FeatureMap::Favorp, Some(directions)) => {
                let inputs = [self.products(tape, x, directions), self.norms(tape, x)];
                let per_token = side == Side::Queries;
                let map = PerformerFeatures::Favorp { factor: share(directions), eps: FAVORP_EPS, per_token, padding };
                tape.apply(map, &inputs)
            }
            (FeatureMap::Fourier, Some(directions)) => {
                let inputs = [self.products(tape, x, directions), self.norms(tape, x)];
                let map = PerformerFeatures::Fourier { factor: share(directions), cos_first: false, padding };
                tape.apply(map, &inputs)
            }
            (FeatureMap::Relu, Some(directions)) => {
                let products = self.products(tape, x, directions);
                tape.apply(PerformerFeatures::Relu { factor: share(directions), eps: RELU_EPS }, &[products])
            }
            (FeatureMap::MlpFourier, Some(directions)) => self.learned(tape, x, directions),
            (FeatureMap::SigmoidOnly, _) => tape.apply(PerformerFeatures::Sigmoid { eps: PLAIN_EPS }, &[x]),
            (FeatureMap::Dpfp, _) => self.rolled(tape, x),
            _ => tape.apply(PerformerFeatures::Relu { factor: 1.0, eps: PLAIN_EPS }, &[x]),
        };
        if !self.config.cos_weighting {
            return features;
        }
        let sizes = [x.dims()[0], x.dims()[2]];
        let ranks = padding.map(|mask| RealTokens::record(&mut tape.rec, mask, sizes).ranks);
        tape.apply(PerformerFeatures::Positions { ranks }, &[features])
    }

    /// Features of queries and of keys; those of padded keys are 0. (With `padding = released` padded keys count for the
    /// keys' maximum: but for the epsilons it is only a common factor.)
    fn both(&self, tape: &mut Tape<'_>, q: Tensor, k: Tensor, context: &Context) -> [Tensor; 2] {
        let directions = self.directions(tape, q, context);
        let padding = self.config.padding;
        let hidden = [context.hidden_queries(padding, q), context.hidden_keys(padding)];
        let queries = self.features(tape, q, directions, (Side::Queries, hidden[0]));
        let keys = self.features(tape, k, directions, (Side::Keys, hidden[1]));
        let keys = match context.key_padding_mask {
            Some(mask) => tape.apply(Mask { fill: 0.0 }, &[keys, mask]),
            None => keys,
        };
        [queries, keys]
    }

    /// Normalisers [batch, heads, N, 1]: every query's features times the sum of all keys'.
    fn normaliser(&self, tape: &mut Tape<'_>, queries: Tensor, keys: Tensor) -> Tensor {
        let &[batch, heads, tokens, _] = keys.dims() else { return keys };
        let ones = tape.rec.scratch("ones", [batch, heads, tokens, 1]);
        fill(&mut tape.rec, ones, 1.0);
        let sum = tape.apply(MatMul { layout: Layout::Tn, scale: 1.0 }, &[keys, ones]);
        tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[queries, sum])
    }
}

impl Attention for Performer {
    fn attend(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Performer);
        let [queries, keys] = self.both(tape, q, k, context);
        let seen = tape.apply(MatMul { layout: Layout::Tn, scale: 1.0 }, &[keys, v]);
        let sums = tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[queries, seen]);
        let normaliser = self.normaliser(tape, queries, keys);
        let out = tape.apply(Divide { smallest: SMALLEST }, &[sums, normaliser]);
        context.without_hidden(tape, self.config.padding, q, out)
    }

    /// psi(q_n).psi(k_m) over the same normaliser. Rows sum to less than 1 where it was raised; `fourier` has negative
    /// weights.
    fn weights(&self, tape: &mut Tape<'_>, Qkv { q, k, .. }: Qkv, context: &Context) -> Tensor {
        context.refuse_causal(tape, MechanismKind::Performer);
        let [queries, keys] = self.both(tape, q, k, context);
        let products = tape.apply(MatMul { layout: Layout::Nt, scale: 1.0 }, &[queries, keys]);
        let normaliser = self.normaliser(tape, queries, keys);
        let weights = tape.apply(Divide { smallest: SMALLEST }, &[products, normaliser]);
        context.without_hidden(tape, self.config.padding, q, weights)
    }
}
