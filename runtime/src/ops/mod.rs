//! Differentiable primitives, one a file; each shares its basename with its shader and its test.

mod adamw;
mod agc;
mod column_sum;
mod cross_entropy;
mod depthwise_conv;
mod difference;
mod distillation;
mod dropout;
mod fill;
mod gelu;
mod gelu_tanh;
mod grad_norm;
mod layer_scale;
mod layernorm;
mod matmul;
mod patchify;
pub mod peak;
mod pooling;
mod position_embedding;
mod relu;
mod residual;
mod swiglu;
mod unfold;

pub use adamw::{AdamW, Clip};
pub use agc::agc;
pub use column_sum::column_sum;
pub(crate) use column_sum::{FEW_BLOCKS, SHARERS, blocks, column_sum_at};
pub use cross_entropy::CrossEntropy;
pub use depthwise_conv::DepthwiseConv;
pub use difference::Difference;
pub(crate) use difference::pass_on_negated;
pub use distillation::Distillation;
pub use dropout::Dropout;
pub use fill::fill;
pub use gelu::Gelu;
pub use gelu_tanh::GeluTanh;
pub use grad_norm::grad_norm;
pub use layer_scale::LayerScale;
pub use layernorm::LayerNorm;
pub(crate) use matmul::Prepared;
pub use matmul::{Layout, Linear, MatMul, Operand, Product};
pub use patchify::Patchify;
pub use pooling::TokenPooling;
pub use position_embedding::PositionEmbedding;
pub use relu::Relu;
pub use residual::Residual;
pub(crate) use residual::pass_on;
pub use swiglu::SwiGlu;
pub use unfold::{Channels, Unfold, Windows};

/// Dispatches an elementwise step over the vec4s of `len` elements; its parameters are `quads` and `accumulate`.
pub(crate) fn over_quads(step: crate::StepBuilder<'_>, len: usize, accumulate: bool) {
    step.uint("quads", quads(len)).flag("accumulate", accumulate).dispatch_items(quads(len));
}

/// Number of vec4s that hold `len` elements; buffers are padded to whole ones.
pub(crate) fn quads(len: usize) -> usize {
    len.div_ceil(4)
}
