//! Building blocks of models. What they record takes its parameters' names from the scope around it and from timm.

use lara_runtime::attention::{Attention, Context, JoinHeads, Qkv, SplitHeads};
use lara_runtime::ops::{Dropout, Gelu, LayerNorm, Linear, Residual};
use lara_runtime::{Init, Tape, Tensor};

use crate::family::{Hook, Site};

/// A linear layer from the last dimension to `outputs`: parameters `weight` [outputs, inputs], begun as `init` says, and
/// with `bias` a `bias` of zeros.
pub fn linear(tape: &mut Tape<'_>, x: Tensor, outputs: usize, bias: bool, init: Init) -> Tensor {
    let weight = tape.parameter("weight", [outputs, x.last()], init);
    if bias {
        let bias = tape.parameter("bias", [outputs], Init::Zeros);
        tape.apply(Linear, &[x, weight, bias])
    } else {
        tape.apply(Linear, &[x, weight])
    }
}

/// A normalisation of the last dimension in the scope `name`: parameters `weight` (ones) and `bias` (zeros).
pub fn layer_norm(tape: &mut Tape<'_>, name: &str, x: Tensor, eps: f32) -> Tensor {
    tape.scope(name, |tape| {
        let gain = tape.parameter("weight", [x.last()], Init::Ones);
        let bias = tape.parameter("bias", [x.last()], Init::Zeros);
        tape.apply(LayerNorm { eps }, &[x, gain, bias])
    })
}

/// Dropout: each number is zeroed with probability `rate` in training, the others are scaled to keep the mean.
pub fn dropout(tape: &mut Tape<'_>, x: Tensor, rate: f64) -> Tensor {
    dropout_of(tape, x, rate, 1)
}

/// Stochastic depth: whole samples (the first dimension) are zeroed with probability `rate` in training, the others are
/// scaled to keep the mean. For a branch that is then added to what it began from.
pub fn drop_path(tape: &mut Tape<'_>, branch: Tensor, rate: f64) -> Tensor {
    dropout_of(tape, branch, rate, branch.len() / branch.dims()[0])
}

/// Numbers in groups of `group` live or die together; nothing happens outside training.
fn dropout_of(tape: &mut Tape<'_>, x: Tensor, rate: f64, group: usize) -> Tensor {
    if rate == 0.0 || !tape.is_training() {
        return x;
    }
    let stream = tape.rec.next_stream();
    tape.apply(Dropout { probability: rate as f32, group, stream }, &[x])
}

/// Two linear layers with a GELU between: parameters `fc1` and `fc2`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    /// Width between the layers.
    pub hidden: usize,
    /// Dropout after each.
    pub drop_rate: f64,
    /// Initial weights.
    pub init: Init,
}

impl Mlp {
    /// Records it for x [.., width]; the output has the same shape.
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let hidden = tape.scope("fc1", |tape| linear(tape, x, self.hidden, true, self.init));
        let active = tape.apply(Gelu, &[hidden]);
        let active = dropout(tape, active, self.drop_rate);
        let output = tape.scope("fc2", |tape| linear(tape, active, x.last(), true, self.init));
        dropout(tape, output, self.drop_rate)
    }
}

/// Self-attention with its projections: parameters `qkv` (queries, keys and values one after the other), those of the
/// mechanism, and `proj`.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention<'a> {
    /// Number of the block, from 0: what a hook calls it.
    pub layer: usize,
    /// How the tokens see one another.
    pub mechanism: &'a dyn Attention,
    /// Where they lie.
    pub context: &'a Context,
    /// Heads; they divide the width.
    pub heads: usize,
    /// Bias in `qkv`.
    pub qkv_bias: bool,
    /// Dropout after `proj`.
    pub drop_rate: f64,
    /// Initial weights of `qkv` and `proj`.
    pub init: Init,
}

impl SelfAttention<'_> {
    /// Records it for x [batch, tokens, width] and lets `hook` look in; the output has the same shape.
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor, hook: &mut Hook<'_>) -> Tensor {
        let &Self { layer, mechanism, context, heads, init, .. } = self;
        let packed = tape.scope("qkv", |tape| linear(tape, x, 3 * x.last(), self.qkv_bias, init));
        let parts = tape.apply_all(SplitHeads { heads, parts: 3 }, &[packed]);
        let qkv = Qkv { q: parts[0], k: parts[1], v: parts[2] };
        if tape.inspects() {
            tape.watch(qkv.v);
        }
        let output = mechanism.attend(tape, qkv, context);
        hook(tape, &Site { layer, mechanism, qkv, context, output });
        let joined = tape.apply(JoinHeads, &[output]);
        let projected = tape.scope("proj", |tape| linear(tape, joined, x.last(), true, init));
        dropout(tape, projected, self.drop_rate)
    }
}

/// A pre-norm block: x += attention(norm1 x), x += mlp(norm2 x). Parameters `norm1`, `attn`, `norm2`, `mlp`.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The first branch.
    pub attention: SelfAttention<'a>,
    /// The second.
    pub mlp: Mlp,
    /// Stochastic depth of both.
    pub drop_path: f64,
    /// Epsilon of the norms.
    pub eps: f32,
}

impl Block<'_> {
    /// Records it for x [batch, tokens, width]; the output has the same shape.
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor, hook: &mut Hook<'_>) -> Tensor {
        let normed = layer_norm(tape, "norm1", x, self.eps);
        let branch = tape.scope("attn", |tape| self.attention.record(tape, normed, hook));
        let branch = drop_path(tape, branch, self.drop_path);
        let x = tape.apply(Residual, &[x, branch]);
        let normed = layer_norm(tape, "norm2", x, self.eps);
        let branch = tape.scope("mlp", |tape| self.mlp.record(tape, normed));
        let branch = drop_path(tape, branch, self.drop_path);
        tape.apply(Residual, &[x, branch])
    }
}
