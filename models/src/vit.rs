//! The Vision Transformer of the paper (no class token, mean pooling) and of timm and DeiT (class token), in one file.
//!
//! Pre-norm blocks: x += attention(norm1 x), x += mlp(norm2 x); a final norm, pooling, a linear classifier. Names of the
//! parameters are timm's; LARA's landmark generators are `attn.q_landmarks` and `attn.k_landmarks`.

use lara_runtime::attention::{Attention, AttentionConfig, mechanism};
use lara_runtime::ops::{Linear, Patchify, PositionEmbedding, TokenPooling};
use lara_runtime::{Init, Tape, Tensor};
use serde::{Deserialize, Serialize};

use crate::attention::LayerAttention;
use crate::check::{count, ensure, share, tensor};
use crate::data::ImageShape;
use crate::error::Result;
use crate::family::{Family, Hook, LayerShape, Network, Outputs};
use crate::layers::{Block, Mlp, SelfAttention, dropout, layer_norm, linear};

/// Epsilon of the norms of a block, as in timm.
const EPS: f32 = 1e-6;

/// No side, width or count of a model comes near it; it keeps products of them from overflowing.
const MAX_SIZE: usize = 65_536;

/// Deeper than any that was published.
const MAX_DEPTH: usize = 1024;

/// A square of 2,048 patches; attention over more is a matter of days.
const MAX_PATCHES: u64 = 1 << 22;

/// 4 GiB of f32: more than an adapter binds at once.
const MAX_TENSOR: u64 = 1 << 30;

/// The widest head that the attention kernels hold in registers and workgroup memory.
const MAX_HEAD_DIM: usize = 256;

/// How the tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalPool {
    /// The mean over the patch tokens.
    #[default]
    Avg,
    /// The class token.
    Token,
}

/// How the weights of linear layers begin; timm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with standard deviation 0.02, cut at two of them: DeiT's, for widths from 192 on.
    #[default]
    Timm,
    /// Xavier uniform and a classifier of zeros: JAX's, which narrow models learn faster from.
    Jax,
}

/// A Vision Transformer on square images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Height and width of the input, pixels.
    pub image_size: usize,
    /// Channels of the input: 1 (grey) or 3 (RGB).
    pub in_chans: usize,
    /// Height and width of a patch, pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Heads of each attention.
    pub num_heads: usize,
    /// Hidden width of the MLP as a multiple of `embed_dim`.
    pub mlp_ratio: f64,
    /// Outputs of the classifier.
    pub num_classes: usize,
    /// Prepend a learned class token.
    pub class_token: bool,
    /// How the tokens become one vector.
    pub global_pool: GlobalPool,
    /// Bias in the projection to queries, keys and values.
    pub qkv_bias: bool,
    /// How the weights of linear layers begin.
    pub weight_init: WeightInit,
    /// Dropout before the classifier and, as in DeiT, after the projections and the position table.
    pub drop_rate: f64,
    /// Stochastic depth of the last block; it grows linearly from 0 at the first.
    pub drop_path_rate: f64,
    /// Attention of single blocks, in their order, over what `[attention]` says of all; empty, or one for each block.
    pub attention_layers: Vec<LayerAttention>,
}

impl Default for VitConfig {
    /// The paper's tiny model on ImageNet.
    fn default() -> Self {
        Self {
            image_size: 224,
            in_chans: 3,
            patch_size: 16,
            embed_dim: 192,
            depth: 12,
            num_heads: 3,
            mlp_ratio: 4.0,
            num_classes: 1000,
            class_token: false,
            global_pool: GlobalPool::Avg,
            qkv_bias: true,
            weight_init: WeightInit::Timm,
            drop_rate: 0.0,
            drop_path_rate: 0.0,
            attention_layers: Vec::new(),
        }
    }
}

impl VitConfig {
    /// Patches along one side.
    pub fn grid_size(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patch tokens, without the class token.
    pub fn num_patches(&self) -> usize {
        self.grid_size() * self.grid_size()
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Hidden width of the MLP.
    pub fn mlp_hidden(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio).round() as usize
    }

    /// Checks that every tensor of one image and all weights can be counted where `address_space` bytes can: products are
    /// taken in 64 bits, for programs of 32, too. The single sizes were checked before.
    ///
    /// # Errors
    /// The first that cannot, and what to lower.
    pub fn check_sizes(&self, address_space: u64) -> Result<()> {
        let [image, patch, channels, dim, depth, classes, hidden] = [
            self.image_size,
            self.patch_size,
            self.in_chans,
            self.embed_dim,
            self.depth,
            self.num_classes,
            self.mlp_hidden(),
        ]
        .map(|size| size as u64);
        let patches = (image / patch) * (image / patch);
        ensure(patches <= MAX_PATCHES, || {
            format!(
                "model.image_size = {image} in patches of {patch} has {patches} patches; at most {MAX_PATCHES} are \
                 possible: choose a larger model.patch_size"
            )
        })?;
        let (tokens, width) = (patches + u64::from(self.class_token), "model.embed_dim or model.image_size");
        for (what, sizes, lower) in [
            ("an image", &[channels, image, image][..], "model.image_size"),
            ("the patch embedding", &[dim, channels, patch, patch], "model.patch_size or model.embed_dim"),
            ("the queries, keys and values", &[tokens, 3, dim], width),
            ("the MLP's hidden layer", &[tokens, hidden], width),
            ("a weight of the MLP", &[hidden, dim], "model.embed_dim or model.mlp_ratio"),
            ("the projection to queries, keys and values", &[3, dim, dim], "model.embed_dim"),
            ("the classifier", &[classes, dim], "model.embed_dim or model.num_classes"),
        ] {
            tensor(what, sizes, MAX_TENSOR, lower)?;
        }
        let block = dim * (4 * dim + 2 * hidden);
        let weights = dim * (channels * patch * patch + tokens + classes) + depth * block;
        // Weights, gradients and both moments of AdamW, 4 bytes each.
        ensure(weights <= address_space / 16, || {
            format!(
                "the model would have {weights} weights, and this program can address {address_space} bytes, 16 of which \
                 each needs: lower model.embed_dim or model.depth"
            )
        })
    }
}

impl Family for VitConfig {
    fn check(&self, attention: &AttentionConfig) -> Result<()> {
        let m = self;
        for (key, value, most) in [
            ("model.image_size", m.image_size, MAX_SIZE),
            ("model.patch_size", m.patch_size, MAX_SIZE),
            ("model.embed_dim", m.embed_dim, MAX_SIZE),
            ("model.depth", m.depth, MAX_DEPTH),
            ("model.num_heads", m.num_heads, MAX_SIZE),
            ("model.num_classes", m.num_classes, MAX_SIZE),
        ] {
            count(key, value, 1..=most)?;
        }
        ensure(matches!(m.in_chans, 1 | 3), || {
            format!("model.in_chans is {}; images are grey (1) or RGB (3)", m.in_chans)
        })?;
        ensure(m.image_size.is_multiple_of(m.patch_size), || {
            format!(
                "model.image_size = {} is not a multiple of model.patch_size = {}; choose a patch size that divides it",
                m.image_size, m.patch_size
            )
        })?;
        ensure(m.embed_dim.is_multiple_of(m.num_heads), || {
            format!(
                "model.embed_dim = {} cannot be split into model.num_heads = {} heads; choose a number that divides it",
                m.embed_dim, m.num_heads
            )
        })?;
        ensure(m.head_dim() <= MAX_HEAD_DIM, || {
            format!(
                "a head of model.embed_dim / model.num_heads = {} is wider than {MAX_HEAD_DIM}; use at least {} heads",
                m.head_dim(),
                m.embed_dim.div_ceil(MAX_HEAD_DIM)
            )
        })?;
        ensure(m.mlp_ratio.is_finite() && (1..=16 * MAX_SIZE).contains(&m.mlp_hidden()), || {
            format!("model.mlp_ratio = {} gives the MLP no usable hidden width; 4 is usual", m.mlp_ratio)
        })?;
        ensure(m.class_token || m.global_pool == GlobalPool::Avg, || {
            "model.global_pool = \"token\" needs model.class_token = true; without one use \"avg\"".into()
        })?;
        share("model.drop_rate", m.drop_rate)?;
        share("model.drop_path_rate", m.drop_path_rate)?;
        m.check_sizes(usize::MAX as u64)?;
        LayerAttention::check(&m.attention_layers, attention, m.depth, m.num_patches())
    }

    fn image_shape(&self) -> ImageShape {
        ImageShape { channels: self.in_chans, height: self.image_size, width: self.image_size }
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn layer(&self, _: usize) -> LayerShape {
        let (side, prefix) = (self.grid_size(), usize::from(self.class_token));
        LayerShape { grid: [side, side], prefix, heads: self.num_heads, head_dim: self.head_dim() }
    }

    fn attention_layers(&self) -> &[LayerAttention] {
        &self.attention_layers
    }

    fn clear_attention_layers(&mut self) {
        self.attention_layers.clear();
    }

    fn build(&self, attention: &AttentionConfig) -> Result<Box<dyn Network>> {
        Ok(Box::new(Vit::new(self, attention)?))
    }
}

/// A Vision Transformer: what to record for images [batch, channels, size, size].
#[derive(Debug)]
pub struct Vit {
    config: VitConfig,
    attention: Vec<Box<dyn Attention>>,
}

impl Vit {
    /// The model of these settings, with `attention` in every block for which they do not say otherwise.
    ///
    /// # Errors
    /// If `attention_layers` does not fit (see [`LayerAttention::resolve`]), or settings of attention contradict each other.
    pub fn new(config: &VitConfig, attention: &AttentionConfig) -> Result<Self> {
        let layers = &config.attention_layers;
        let attention = (0..config.depth)
            .map(|at| Ok(mechanism(&LayerAttention::resolve(layers, attention, at)?)?))
            .collect::<Result<_>>()?;
        Ok(Vit { config: config.clone(), attention })
    }

    fn pooling(&self, x: Tensor) -> TokenPooling {
        let prefix = usize::from(self.config.class_token);
        match self.config.global_pool {
            GlobalPool::Token => TokenPooling { first: 0, count: 1 },
            GlobalPool::Avg => TokenPooling { first: prefix, count: x.dims()[1] - prefix },
        }
    }

    /// Patch embedding (a convolution whose stride is its size, so a matmul), class token and position table.
    fn embed(&self, tape: &mut Tape<'_>, images: Tensor) -> Tensor {
        let VitConfig { patch_size: p, in_chans, embed_dim: dim, .. } = self.config;
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
        let embedded = if self.config.class_token {
            let class_token = tape.parameter_without_decay("cls_token", [1, 1, dim], Init::TruncNormal(0.02));
            tape.apply(PositionEmbedding, &[tokens, position, class_token])
        } else {
            tape.apply(PositionEmbedding, &[tokens, position])
        };
        dropout(tape, embedded, self.config.drop_rate)
    }

    /// Initial weights of the linear layers.
    fn init(&self) -> Init {
        match self.config.weight_init {
            WeightInit::Timm => Init::TruncNormal(0.02),
            WeightInit::Jax => Init::XavierUniform,
        }
    }

    fn tokens(&self) -> usize {
        self.config.num_patches() + usize::from(self.config.class_token)
    }

    fn block(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, hook: &mut Hook<'_>) -> Tensor {
        let VitConfig { num_heads: heads, qkv_bias, drop_rate, drop_path_rate, depth, .. } = self.config;
        let (context, init) = (self.config.layer(layer).context(), self.init());
        let mechanism = &*self.attention[layer];
        let attention = SelfAttention { layer, mechanism, context: &context, heads, qkv_bias, drop_rate, init };
        let mlp = Mlp { hidden: self.config.mlp_hidden(), drop_rate, init };
        let last = depth.saturating_sub(1).max(1) as f64;
        Block { attention, mlp, drop_path: drop_path_rate * layer as f64 / last, eps: EPS }.record(tape, x, hook)
    }
}

impl Network for Vit {
    fn forward_hooked(&self, tape: &mut Tape<'_>, inputs: &[Tensor], hook: &mut Hook<'_>) -> Outputs {
        let mut x = self.embed(tape, inputs[0]);
        for layer in 0..self.config.depth {
            x = tape
                .scope("blocks", |tape| tape.scope(&layer.to_string(), |tape| self.block(tape, x, layer, &mut *hook)));
        }
        x = layer_norm(tape, "norm", x, EPS);
        let pooled = tape.apply(self.pooling(x), &[x]);
        let pooled = dropout(tape, pooled, self.config.drop_rate);
        let logits = tape.scope("head", |tape| {
            let init = if self.config.weight_init == WeightInit::Jax { Init::Zeros } else { self.init() };
            linear(tape, pooled, self.config.num_classes, true, init)
        });
        Outputs::of("logits", logits).and("features", x)
    }
}
