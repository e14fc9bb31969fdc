//! The Vision Transformer of the paper (no class token, mean pooling) and of timm and DeiT (class token), in one file.
//!
//! Pre-norm blocks: x += attention(norm1 x), x += mlp(norm2 x); a final norm, pooling, a linear classifier. Names of the
//! parameters are timm's; LARA's landmark generators are `attn.q_landmarks` and `attn.k_landmarks`.

use lara_runtime::attention::{Attention, AttentionConfig, Context, Grid, JoinHeads, Qkv, SplitHeads, mechanism};
use lara_runtime::ops::{Dropout, Embedding, Gelu, LayerNorm, Linear, Patchify, Residual, TokenPooling};
use lara_runtime::{Init, Tape, Tensor};

use crate::error::Result;
use crate::train::TrainConfig;
use crate::train::config::{GlobalPool, ModelConfig, WeightInit};

/// Epsilon of the norms of a block, as in timm.
const EPS: f32 = 1e-6;

/// A Vision Transformer: what to record for images [batch, channels, size, size].
#[derive(Clone, Debug)]
pub struct Vit {
    model: ModelConfig,
    attention: Vec<AttentionConfig>,
}

/// What a forward pass recorded.
#[derive(Debug)]
pub struct VitOutput {
    /// Logits [batch, classes].
    pub logits: Tensor,
    /// Attention weights of every block [batch, heads, tokens, tokens], if they were asked for.
    pub maps: Vec<Tensor>,
    /// Queries, keys and values of every block, each [batch, heads, tokens, head dim]; pin what is to be read.
    pub qkv: Vec<Qkv>,
}

/// A block's attention while it is recorded: what went in, what came out.
#[derive(Debug)]
pub struct Attended<'a> {
    /// Number of the block, from 0.
    pub layer: usize,
    /// The mechanism.
    pub mechanism: &'a dyn Attention,
    /// What went in.
    pub qkv: Qkv,
    /// Where the tokens lie.
    pub context: &'a Context,
    /// What came out, [batch, heads, tokens, head dim].
    pub output: Tensor,
}

/// Called right after a block's attention, inside the block's scope, and free to record more.
pub type Look<'l> = dyn FnMut(&mut Tape<'_>, &Attended<'_>) + 'l;

impl Vit {
    /// The model of a configuration.
    ///
    /// # Errors
    /// If `model.attention_layers` does not fit (see [`TrainConfig::attention_of`]).
    pub fn new(config: &TrainConfig) -> Result<Self> {
        let attention = (0..config.model.depth).map(|layer| config.attention_of(layer)).collect::<Result<_>>()?;
        Ok(Vit { model: config.model.clone(), attention })
    }

    /// Records the model for images [batch, channels, size, size].
    pub fn forward(&self, tape: &mut Tape<'_>, images: Tensor) -> Tensor {
        self.forward_looking(tape, images, &mut |_, _| {})
    }

    /// Records the model and the attention weights of every block: N x N numbers a head, for looking at.
    pub fn forward_with_maps(&self, tape: &mut Tape<'_>, images: Tensor) -> VitOutput {
        let (mut maps, mut qkv) = (Vec::new(), Vec::new());
        let logits = self.forward_looking(tape, images, &mut |tape, attended| {
            maps.push(attended.mechanism.weights(tape, attended.qkv, attended.context));
            qkv.push(attended.qkv);
        });
        VitOutput { logits, maps, qkv }
    }

    /// Records the model and says where the queries, keys and values of every block are.
    pub fn forward_with_qkv(&self, tape: &mut Tape<'_>, images: Tensor) -> VitOutput {
        let mut qkv = Vec::new();
        let logits = self.forward_looking(tape, images, &mut |_, attended| qkv.push(attended.qkv));
        VitOutput { logits, maps: Vec::new(), qkv }
    }

    /// Records the model and lets `look` see every block's attention; returns the logits [batch, classes].
    pub fn forward_looking(&self, tape: &mut Tape<'_>, images: Tensor, look: &mut Look<'_>) -> Tensor {
        let mut x = self.embed(tape, images);
        for layer in 0..self.model.depth {
            x = tape
                .scope("blocks", |tape| tape.scope(&layer.to_string(), |tape| self.block(tape, x, layer, &mut *look)));
        }
        x = layer_norm(tape, "norm", x);
        let pooled = tape.apply(self.pooling(x), &[x]);
        let pooled = dropout(tape, pooled, self.model.drop_rate, 1);
        tape.scope("head", |tape| {
            let init = if self.model.weight_init == WeightInit::Jax { Init::Zeros } else { self.init() };
            linear(tape, pooled, self.model.num_classes, true, init)
        })
    }

    fn pooling(&self, x: Tensor) -> TokenPooling {
        let prefix = usize::from(self.model.class_token);
        match self.model.global_pool {
            GlobalPool::Token => TokenPooling { first: 0, count: 1 },
            GlobalPool::Avg => TokenPooling { first: prefix, count: x.dims()[1] - prefix },
        }
    }

    /// Patch embedding (a convolution whose stride is its size, so a matmul), class token and position table.
    fn embed(&self, tape: &mut Tape<'_>, images: Tensor) -> Tensor {
        let ModelConfig { patch_size: p, in_chans, embed_dim: dim, .. } = self.model;
        let patches = tape.apply(Patchify { patch: p }, &[images]);
        let tokens = tape.scope("patch_embed", |tape| {
            tape.scope("proj", |tape| {
                let inputs = in_chans * p * p;
                let weight = tape.parameter("weight", [dim, in_chans, p, p], Init::FanIn(inputs));
                let bias = tape.parameter("bias", [dim], Init::FanIn(inputs));
                tape.apply(Linear, &[patches, weight.reshape([dim, inputs]), bias])
            })
        });
        let table = [1, self.tokens(), dim];
        let position = tape.parameter_without_decay("pos_embed", table, Init::TruncNormal(0.02));
        let embedded = if self.model.class_token {
            let class_token = tape.parameter_without_decay("cls_token", [1, 1, dim], Init::TruncNormal(0.02));
            tape.apply(Embedding, &[tokens, position, class_token])
        } else {
            tape.apply(Embedding, &[tokens, position])
        };
        dropout(tape, embedded, self.model.drop_rate, 1)
    }

    /// Initial weights of the linear layers.
    fn init(&self) -> Init {
        match self.model.weight_init {
            WeightInit::Timm => Init::TruncNormal(0.02),
            WeightInit::Jax => Init::XavierUniform,
        }
    }

    fn tokens(&self) -> usize {
        self.model.num_patches() + usize::from(self.model.class_token)
    }

    fn block(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, look: &mut Look<'_>) -> Tensor {
        let last = self.model.depth.saturating_sub(1).max(1) as f64;
        let drop_path = self.model.drop_path_rate * layer as f64 / last;
        let sample = self.tokens() * self.model.embed_dim;
        let normed = layer_norm(tape, "norm1", x);
        let branch = tape.scope("attn", |tape| self.attention(tape, normed, layer, look));
        let branch = dropout(tape, branch, drop_path, sample);
        let x = tape.apply(Residual, &[x, branch]);
        let normed = layer_norm(tape, "norm2", x);
        let branch = tape.scope("mlp", |tape| self.mlp(tape, normed));
        let branch = dropout(tape, branch, drop_path, sample);
        tape.apply(Residual, &[x, branch])
    }

    fn attention(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, look: &mut Look<'_>) -> Tensor {
        let ModelConfig { embed_dim: dim, num_heads: heads, qkv_bias, drop_rate, .. } = self.model;
        let packed = tape.scope("qkv", |tape| linear(tape, x, 3 * dim, qkv_bias, self.init()));
        let parts = tape.apply_all(SplitHeads { heads, parts: 3 }, &[packed]);
        let qkv = Qkv { q: parts[0], k: parts[1], v: parts[2] };
        let side = self.model.grid_size();
        let context = Context {
            grid: Grid::Plane([side, side]),
            prefix: usize::from(self.model.class_token),
            ..Context::default()
        };
        let mechanism = mechanism(&self.attention[layer]);
        if tape.inspects() {
            tape.watch(qkv.v);
        }
        let output = mechanism.attend(tape, qkv, &context);
        look(tape, &Attended { layer, mechanism: &*mechanism, qkv, context: &context, output });
        let joined = tape.apply(JoinHeads, &[output]);
        let projected = tape.scope("proj", |tape| linear(tape, joined, dim, true, self.init()));
        dropout(tape, projected, drop_rate, 1)
    }

    fn mlp(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let ModelConfig { embed_dim: dim, drop_rate, .. } = self.model;
        let hidden = tape.scope("fc1", |tape| linear(tape, x, self.model.mlp_hidden(), true, self.init()));
        let active = tape.apply(Gelu, &[hidden]);
        let active = dropout(tape, active, drop_rate, 1);
        let output = tape.scope("fc2", |tape| linear(tape, active, dim, true, self.init()));
        dropout(tape, output, drop_rate, 1)
    }
}

fn linear(tape: &mut Tape<'_>, x: Tensor, outputs: usize, bias: bool, init: Init) -> Tensor {
    let weight = tape.parameter("weight", [outputs, x.last()], init);
    if bias {
        let bias = tape.parameter("bias", [outputs], Init::Zeros);
        tape.apply(Linear, &[x, weight, bias])
    } else {
        tape.apply(Linear, &[x, weight])
    }
}

fn layer_norm(tape: &mut Tape<'_>, name: &str, x: Tensor) -> Tensor {
    tape.scope(name, |tape| {
        let gain = tape.parameter("weight", [x.last()], Init::Ones);
        let bias = tape.parameter("bias", [x.last()], Init::Zeros);
        tape.apply(LayerNorm { eps: EPS }, &[x, gain, bias])
    })
}

/// Dropout (`group` = 1) or drop-path (`group` = elements of a sample); nothing outside training.
fn dropout(tape: &mut Tape<'_>, x: Tensor, rate: f64, group: usize) -> Tensor {
    if rate == 0.0 || !tape.is_training() {
        return x;
    }
    let stream = tape.rec.next_stream();
    tape.apply(Dropout { probability: rate as f32, group, stream }, &[x])
}
