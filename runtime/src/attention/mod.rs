//! Attention mechanisms: siblings that compose differentiable operations, so that their gradients come free.

mod attend;
mod column_lse;
mod config;
mod heads;
mod key_norms;
mod landmarks;
mod lara;
mod lara_mix;
mod lara_weights;
mod noise;
mod softmax;
mod streamed;

pub use attend::Attend;
pub use column_lse::ColumnLse;
pub use config::{AttentionConfig, MechanismKind, MisType, Noise, ProposalGen};
pub use heads::{JoinHeads, SplitHeads};
pub use key_norms::KeyNorms;
pub use landmarks::{Landmarks, Pooling};
pub use lara::Lara;
pub use lara_mix::LaraMix;
pub use lara_weights::LaraWeights;
pub use noise::Perturb;

use crate::ops::{Layout, Product};
use crate::{Recorder, Tape, Tensor};

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

/// What a mechanism may want to know about the tokens.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Rows and columns, if the tokens (after `prefix`) lie on a grid.
    pub grid: Option<[usize; 2]>,
    /// Tokens in front of the grid or sequence that stand for no place: 1 for a class token.
    pub prefix: usize,
    /// Noise that is added to the proposals' means as it is, instead of drawing some.
    pub noise: Option<Tensor>,
}

impl Context {
    /// s = d^(-1/2).
    fn scale(&self, q: Tensor) -> f32 {
        1.0 / (q.last() as f32).sqrt()
    }

    /// How landmarks are pooled from `x`: floor(sqrt(wanted)) squared on a grid, segments on a sequence.
    fn pooling(&self, x: Tensor, wanted: usize) -> Pooling {
        match self.grid {
            Some(grid) => Pooling::Grid { grid, side: wanted.isqrt().max(1) },
            None => {
                let tokens = x.dims()[2].saturating_sub(self.prefix);
                Pooling::Segments { tokens, landmarks: wanted.min(tokens).max(1) }
            }
        }
    }
}

/// An attention mechanism.
pub trait Attention: std::fmt::Debug {
    /// Records the attention output [batch, heads, N, D].
    fn attend(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor;

    /// Records the (implied) attention weights [batch, heads, N, M]; rows sum to 1. For looking at: N x M numbers.
    fn weights(&self, tape: &mut Tape<'_>, qkv: Qkv, context: &Context) -> Tensor;
}

/// Exact softmax attention.
#[derive(Clone, Copy, Debug)]
pub struct Softmax;

impl Attention for Softmax {
    fn attend(&self, tape: &mut Tape<'_>, Qkv { q, k, v }: Qkv, context: &Context) -> Tensor {
        tape.apply_all(Attend { scale: context.scale(q) }, &[q, k, v])[0]
    }

    fn weights(&self, tape: &mut Tape<'_>, Qkv { q, k, .. }: Qkv, context: &Context) -> Tensor {
        Attend { scale: context.scale(q) }.probabilities(&mut tape.rec, q, k, None)
    }
}

/// The mechanism that a configuration names.
pub fn mechanism(config: &AttentionConfig) -> Box<dyn Attention> {
    match config.mechanism {
        MechanismKind::Softmax => Box::new(Softmax),
        MechanismKind::Lara => Box::new(Lara::new(config.clone())),
    }
}

/// A tensor of zeros: 0 * x x^T of anything finite would do, a copy with weight 0 is simplest.
fn zeros_like(rec: &mut Recorder, like: Tensor) -> Tensor {
    let zeros = rec.scratch("zeros", like.shape());
    let product = Product { layout: Layout::Nt, batch: 1, m: like.len(), n: 1, k: 1, scale: 0.0, accumulate: false };
    product.record(rec, like, like, None, zeros);
    zeros
}
