//! Building blocks of models. What they record takes its parameters' names from the scope around it and from timm.

use lara_runtime::attention::{Attention, Broadcast, Context, JoinHeads, JoinTokens, Qkv, SplitHeads};
use lara_runtime::ops::{
    Channels, DepthwiseConv, Dropout, Gelu, GeluTanh, LayerNorm, LayerScale, Linear, Relu, Residual, SwiGlu, Unfold,
    Windows,
};
use lara_runtime::{Init, Tape, Tensor};
use serde::{Deserialize, Serialize};

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

/// A learned factor for every channel in the scope `name`, begun as `init`: parameter `gamma`. Nothing where `init` is 0.
pub fn layer_scale(tape: &mut Tape<'_>, name: &str, x: Tensor, init: f64) -> Tensor {
    if init == 0.0 {
        return x;
    }
    tape.scope(name, |tape| {
        let gamma = tape.parameter("gamma", [x.last()], Init::Constant(init as f32));
        tape.apply(LayerScale, &[x, gamma])
    })
}

/// Tensors [batch, n, width] one after the other: [batch, sum of n, width].
pub fn join(tape: &mut Tape<'_>, parts: &[Tensor]) -> Tensor {
    let heads: Vec<Tensor> = parts.iter().map(|x| x.reshape([x.dims()[0], 1, x.dims()[1], x.last()])).collect();
    let joined = tape.apply(JoinTokens { repeat: 1 }, &heads);
    joined.reshape([joined.dims()[0], joined.dims()[2], joined.last()])
}

/// The same tokens [1, n, width] in front of every sample of x [batch, m, width]: [batch, n + m, width].
pub fn prepend(tape: &mut Tape<'_>, tokens: Tensor, x: Tensor) -> Tensor {
    let each = tape.apply(Broadcast { batch: x.dims()[0], factor: 1.0 }, &[tokens]);
    let each = each.reshape([x.dims()[0], tokens.dims()[1], x.last()]);
    join(tape, &[each, x])
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

/// Which GELU; timm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActLayer {
    /// The exact one.
    #[default]
    Gelu,
    /// Its tanh form.
    GeluTanh,
}

/// What stands between the layers of an [`Mlp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpLayer {
    /// A GELU: timm's `Mlp`.
    #[default]
    Mlp,
    /// SiLU of the first half of the hidden channels times the second: timm's `SwiGLUPacked`. The second layer sees half
    /// of the hidden width.
    SwigluPacked,
}

/// Two linear layers with something not linear between: parameters `fc1` and `fc2`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    /// What stands between them.
    pub layer: MlpLayer,
    /// Which GELU, where it is one.
    pub act: ActLayer,
    /// Width of the first layer's output.
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
        let active = match (self.layer, self.act) {
            (MlpLayer::Mlp, ActLayer::Gelu) => tape.apply(Gelu, &[hidden]),
            (MlpLayer::Mlp, ActLayer::GeluTanh) => tape.apply(GeluTanh, &[hidden]),
            (MlpLayer::SwigluPacked, _) => tape.apply(SwiGlu, &[hidden]),
        };
        let active = dropout(tape, active, self.drop_rate);
        let output = tape.scope("fc2", |tape| linear(tape, active, x.last(), true, self.init));
        dropout(tape, output, self.drop_rate)
    }
}

/// Self-attention with its projections: parameters `qkv` (queries, keys and values one after the other), `q_norm` and
/// `k_norm` where asked for, those of the mechanism, and `proj`.
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
    /// Queries and keys are normalised head by head, with this epsilon (Dehghani et al. 2023).
    pub qk_norm: Option<f32>,
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
        let [q, k] = match self.qk_norm {
            Some(eps) => [("q_norm", parts[0]), ("k_norm", parts[1])].map(|(name, x)| layer_norm(tape, name, x, eps)),
            None => [parts[0], parts[1]],
        };
        let qkv = Qkv { q, k, v: parts[2] };
        [("q", q), ("k", k), ("v", qkv.v)].into_iter().for_each(|(name, x)| tape.rec.name(name, x));
        if tape.inspects() {
            tape.watch(qkv.v);
        }
        let output = mechanism.attend(tape, qkv, context);
        hook(tape, &Site { layer, mechanism, qkv, context, output });
        tape.rec.name("out", output);
        let joined = tape.apply(JoinHeads, &[output]);
        let projected = tape.scope("proj", |tape| linear(tape, joined, x.last(), true, init));
        dropout(tape, projected, self.drop_rate)
    }
}

/// A pre-norm block: x += attention(norm1 x), x += mlp(norm2 x). Parameters `norm1`, `attn`, `norm2`, `mlp`, and `ls1` and
/// `ls2` where branches are scaled.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The first branch.
    pub attention: SelfAttention<'a>,
    /// The second.
    pub mlp: Mlp,
    /// Stochastic depth of both.
    pub drop_path: f64,
    /// Where the factors of both branches' channels begin; 0 for none.
    pub layer_scale: f64,
    /// Epsilon of the norms.
    pub eps: f32,
}

impl Block<'_> {
    /// Records it for x [batch, tokens, width]; the output has the same shape.
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor, hook: &mut Hook<'_>) -> Tensor {
        let normed = layer_norm(tape, "norm1", x, self.eps);
        let branch = tape.scope("attn", |tape| self.attention.record(tape, normed, hook));
        let branch = layer_scale(tape, "ls1", branch, self.layer_scale);
        let branch = drop_path(tape, branch, self.drop_path);
        let x = tape.apply(Residual, &[x, branch]);
        let normed = layer_norm(tape, "norm2", x, self.eps);
        let branch = tape.scope("mlp", |tape| self.mlp.record(tape, normed));
        let branch = layer_scale(tape, "ls2", branch, self.layer_scale);
        let branch = drop_path(tape, branch, self.drop_path);
        tape.apply(Residual, &[x, branch])
    }
}

/// A convolution: parameters `weight` [outputs, channels, rows, columns] of the windows (with frames in front of the rows
/// where there is more than one) and `bias`.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Channels of the output.
    pub outputs: usize,
    /// What slides over the input.
    pub windows: Windows,
    /// Initial weights; the bias begins with zeros.
    pub init: Init,
}

impl Conv {
    /// Records it for x, which looks as `channels` says; the output is [batch, windows, outputs].
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor, channels: Channels) -> Tensor {
        let &Self { outputs, windows, init } = self;
        let [frames, rows, columns] = windows.kernel;
        let (inputs, last) = match channels {
            Channels::First => (x.dims().get(1).copied().unwrap_or(1), false),
            Channels::Last(_) => (x.last(), true),
        };
        // One token after the other, as they are.
        let is_linear = last && windows == Windows::square(1, 1, 0);
        let unfolded = if is_linear { x } else { tape.apply(Unfold { windows, channels }, &[x]) };
        let weight = if frames == 1 {
            tape.parameter("weight", [outputs, inputs, rows, columns], init)
        } else {
            tape.parameter("weight", [outputs, inputs, frames, rows, columns], init)
        };
        let bias = tape.parameter("bias", [outputs], Init::Zeros);
        tape.apply(Linear, &[unfolded, weight.reshape([outputs, inputs * frames * rows * columns]), bias])
    }
}

/// A depthwise convolution of tokens [batch, tokens, channels] on a grid, of the same size: parameters `weight` [channels, 1,
/// side, side] and `bias`.
pub fn depthwise_conv(tape: &mut Tape<'_>, x: Tensor, grid: [usize; 2], side: usize, init: Init) -> Tensor {
    let weight = tape.parameter("weight", [x.last(), 1, side, side], init);
    let bias = tape.parameter("bias", [x.last()], Init::Zeros);
    tape.apply(DepthwiseConv { grid }, &[x, weight, bias])
}

/// Overlapping patches to normalised tokens (PVTv2, section 3.2): parameters `proj` and `norm`.
#[derive(Clone, Copy, Debug)]
pub struct OverlapPatchEmbed {
    /// The convolution.
    pub proj: Conv,
    /// Epsilon of the norm.
    pub eps: f32,
}

impl OverlapPatchEmbed {
    /// Records it for x, which looks as `channels` says; the output is [batch, windows, width].
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor, channels: Channels) -> Tensor {
        let tokens = tape.scope("proj", |tape| self.proj.record(tape, x, channels));
        layer_norm(tape, "norm", tokens, self.eps)
    }
}

/// An [`Mlp`] whose tokens see their neighbours: a 3x3 depthwise convolution before the GELU (PVTv2, section 3.3). Parameters
/// `fc1`, `dwconv` and `fc2`.
#[derive(Clone, Copy, Debug)]
pub struct ConvMlp {
    /// Width between the linear layers.
    pub hidden: usize,
    /// Rows and columns of the tokens.
    pub grid: [usize; 2],
    /// A rectifier before the convolution ("li").
    pub relu: bool,
    /// Dropout after the GELU and after `fc2`.
    pub drop_rate: f64,
    /// Initial weights of the linear layers.
    pub init: Init,
    /// Those of the convolution.
    pub conv_init: Init,
}

impl ConvMlp {
    /// Records it for x [batch, tokens, width]; the output has the same shape.
    pub fn record(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let &Self { hidden, drop_rate, init, .. } = self;
        let mut inner = tape.scope("fc1", |tape| linear(tape, x, hidden, true, init));
        if self.relu {
            inner = tape.apply(Relu, &[inner]);
        }
        inner = tape.scope("dwconv", |tape| depthwise_conv(tape, inner, self.grid, 3, self.conv_init));
        let active = tape.apply(Gelu, &[inner]);
        let active = dropout(tape, active, drop_rate);
        let output = tape.scope("fc2", |tape| linear(tape, active, x.last(), true, init));
        dropout(tape, output, drop_rate)
    }
}
