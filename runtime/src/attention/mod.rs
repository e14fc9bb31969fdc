//! Attention mechanisms: siblings that compose differentiable operations, so that their gradients come free.

mod add_token;
mod attend;
mod broadcast;
mod column_lse;
mod config;
mod divide;
mod draw_keys;
mod extras;
mod gather_keys;
mod heads;
mod join_tokens;
mod key_norms;
mod landmark_generator;
mod landmarks;
mod lara;
mod lara_mix;
mod lara_weights;
mod mask;
mod noise;
mod performer;
mod performer_features;
mod projection;
mod ra;
mod real_tokens;
mod relative_lse;
mod rfa;
mod softmax;
mod streamed;
mod value_norms;

pub use add_token::AddToken;
pub use attend::{Attend, AttendApart};
pub use broadcast::Broadcast;
pub use column_lse::ColumnLse;
pub use config::{
    AttentionConfig, FeatureMap, MechanismKind, MisType, NoiseScale, Padding, PoolModule, Projection, ProposalGen,
    SampleScheme,
};
pub use divide::Divide;
pub use draw_keys::DrawKeys;
pub use extras::{Extra, Need};
pub use gather_keys::GatherKeys;
pub use heads::{JoinHeads, SplitHeads};
pub use join_tokens::JoinTokens;
pub use key_norms::KeyNorms;
pub use landmarks::{Landmarks, Pooling};
pub use lara::Lara;
pub use lara_mix::LaraMix;
pub use lara_weights::LaraWeights;
pub use mask::{MASKED, Mask};
pub use noise::Noise;
pub use performer::Performer;
pub use performer_features::PerformerFeatures;
pub use projection::DrawProjection;
pub use ra::Ra;
pub use real_tokens::{RealLandmarks, RealTokens};
pub use relative_lse::RelativeLse;
pub use rfa::Rfa;
pub use value_norms::ValueNorms;

use crate::ops::fill;
use crate::{Error, Tape, Tensor};

/// Queries [batch, heads, N, D], keys and values [batch, heads, M, D], unscaled.
#[derive(Clone, Copy, Debug)]
pub struct Qkv {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// Where tokens lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grid {
    /// One after the other: text.
    #[default]
    Sequence,
    /// Rows and columns, row-major: an image.
    Plane([usize; 2]),
    /// Frames, rows and columns: a video.
    Volume([usize; 3]),
}

/// What a mechanism may want to know about the tokens, and randomness that is given instead of drawn.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Where the tokens after `prefix` lie.
    pub grid: Grid,
    /// Where the keys lie, if not as the queries do. Set it for cross-attention even where N = M: without it the key mask
    /// of as many keys as queries counts for the queries, too.
    pub key_grid: Option<Grid>,
    /// Tokens in front of the grid or sequence that stand for no place: 1 for a class token.
    pub prefix: usize,
    /// Hide keys that lie after the query (aligned at the ends where M differs from N): a decoder's self-attention. Refused
    /// by mechanisms that have no such form.
    pub causal: bool,
    /// [batch, M], 1 where a key is padding, otherwise 0.
    pub key_padding_mask: Option<Tensor>,
    /// [batch, N], 1 where a query is padding. Where it is absent, self-attention (no `key_grid`, N = M) takes the keys'.
    pub query_padding_mask: Option<Tensor>,
    /// Noise that is added to the proposals' means as it is, instead of drawing some: [batch, heads, C, D] (2 C under
    /// `use_multisample`), for RA [batch, heads, N S, D].
    pub noise: Option<Tensor>,
    /// RA's drawn keys [batch, heads, N S], as numbers in f32.
    pub index: Option<Tensor>,
    /// RFA's and Performer's projection [heads, S, D] in the paper's units (rows drawn from N(0, I)).
    pub projection: Option<Tensor>,
}

impl Context {
    /// s = d^(-1/2).
    fn scale(&self, q: Tensor) -> f32 {
        1.0 / (q.last() as f32).sqrt()
    }

    /// The given noise, if there is some and it fits the means of a mechanism's proposals.
    fn noise_for(&self, tape: &mut Tape<'_>, mechanism: MechanismKind, means: Tensor) -> Option<Tensor> {
        let given = self.noise?;
        if given.shape() == means.shape() {
            return Some(given);
        }
        let (name, given, means) = (mechanism.name(), given.shape(), means.shape());
        tape.rec.fail(Error::Shape(format!("the noise of {name} has the shape {means} here, not {given}")));
        None
    }

    /// For mechanisms whose sums over keys are the same for all queries.
    fn refuse_causal(&self, tape: &mut Tape<'_>, mechanism: MechanismKind) {
        if self.causal {
            tape.rec.fail(Error::Setting(no_causal_form("attention is causal here", mechanism)));
        }
    }

    /// The mask of the queries: in self-attention that of the keys.
    fn queries_mask(&self, q: Tensor) -> Option<Tensor> {
        let (batch, queries) = (q.dims()[0], q.dims()[2]);
        let of_keys = self.key_padding_mask.filter(|mask| mask.len() == batch * queries);
        self.query_padding_mask.or(of_keys.filter(|_| self.key_grid.is_none()))
    }

    /// The mask of queries of which nothing may show at the others, if padding is treated so.
    fn hidden_queries(&self, padding: Padding, q: Tensor) -> Option<Tensor> {
        self.queries_mask(q).filter(|_| padding == Padding::Exact)
    }

    /// The same of keys.
    fn hidden_keys(&self, padding: Padding) -> Option<Tensor> {
        self.key_padding_mask.filter(|_| padding == Padding::Exact)
    }

    /// `x` [batch, heads, N, width] with zeros for padded queries: they say nothing, and no gradient comes back from them.
    fn without_hidden(&self, tape: &mut Tape<'_>, padding: Padding, q: Tensor, x: Tensor) -> Tensor {
        match self.hidden_queries(padding, q) {
            Some(mask) => tape.apply(Mask { fill: 0.0 }, &[x, mask]),
            None => x,
        }
    }

    /// `bias` [batch, heads, M] with the sentinel at padded keys; an absent bias counts as zero.
    fn key_bias(&self, tape: &mut Tape<'_>, k: Tensor, bias: Option<Tensor>) -> Option<Tensor> {
        let Some(mask) = self.key_padding_mask else { return bias };
        let bias = bias.unwrap_or_else(|| {
            let zeros = tape.rec.scratch("no key bias", &k.dims()[..3]);
            fill(&mut tape.rec, zeros, 0.0);
            zeros
        });
        Some(tape.apply(Mask { fill: MASKED }, &[bias, mask]))
    }

    /// -(s / 2) |k_m|^2 [batch, heads, M], the key term of phi, with the sentinel at padded keys.
    fn feature_bias(&self, tape: &mut Tape<'_>, k: Tensor) -> Tensor {
        let norms = tape.apply(KeyNorms { scale: self.scale(k) }, &[k]);
        self.key_bias(tape, k, Some(norms)).unwrap_or(norms)
    }
}

/// An attention mechanism.
pub trait Attention: std::fmt::Debug {
    /// Records the attention output [batch, heads, N, D].
    fn attend(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor;

    /// Records the (implied) attention weights [batch, heads, N, M]; rows sum to 1. For looking at: N x M numbers.
    fn weights(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor;
}

/// The sentence for `what` under a mechanism that cannot hide later keys.
fn no_causal_form(what: &str, mechanism: MechanismKind) -> String {
    format!("{what}, but {} has no causal form; of the mechanisms only softmax has one", mechanism.name())
}

/// Exact softmax attention.
#[derive(Clone, Copy, Debug, Default)]
pub struct Softmax {
    /// Hide later keys in any context, as [`Context::causal`] does in one.
    pub causal: bool,
}

impl Softmax {
    fn attend_in(&self, context: &Context, q: Tensor) -> Attend {
        Attend { scale: context.scale(q), causal: self.causal || context.causal }
    }
}

impl Attention for Softmax {
    fn attend(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Tensor {
        let attend = self.attend_in(context, q);
        match context.key_bias(tape, k, None) {
            Some(bias) => tape.apply_all(attend, &[q, k, v, bias])[0],
            None => tape.apply_all(attend, &[q, k, v])[0],
        }
    }

    fn weights(&self, tape: &mut Tape<'_>, Qkv { q, k, .. }: Qkv, context: &Context) -> Tensor {
        let bias = context.key_bias(tape, k, None);
        self.attend_in(context, q).probabilities(&mut tape.rec, q, k, bias)
    }
}

/// The mechanism that a configuration names.
///
/// # Errors
/// Settings that contradict each other: see [`AttentionConfig::check`].
pub fn mechanism(config: &AttentionConfig) -> Result<Box<dyn Attention>, Error> {
    config.check()?;
    Ok(match config.mechanism {
        MechanismKind::Softmax => Box::new(Softmax { causal: config.causal }),
        MechanismKind::Ra => Box::new(Ra::new(config.clone())),
        MechanismKind::Performer => Box::new(Performer::new(config.clone())),
        MechanismKind::Rfa => Box::new(Rfa::new(config.clone())),
        MechanismKind::Lara => Box::new(Lara::new(config.clone())),
    })
}
