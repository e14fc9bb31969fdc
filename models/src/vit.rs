//! The Vision Transformer of the paper (no class token, mean pooling), of timm, DeiT (I to III), DINO and DINOv2, in one file.
//!
//! Pre-norm blocks: x += attention(norm1 x), x += mlp(norm2 x); a final norm, pooling, a linear classifier. Names of the
//! parameters are timm's; LARA's landmark generators are `attn.q_landmarks` and `attn.k_landmarks`.

mod sizes;

use lara_runtime::attention::{Attention, AttentionConfig, mechanism};
use lara_runtime::ops::{Linear, Patchify, PositionEmbedding, TokenPooling};
use lara_runtime::{Init, Tape, Tensor};
use serde::{Deserialize, Serialize};

use crate::attention::LayerAttention;
use crate::check::{above_zero, count, ensure, share, zero_or_above};
use crate::data::ImageShape;
use crate::error::Result;
use crate::family::{Family, Hook, LayerShape, Network, Outputs};
use crate::image_size::ImageSize;
use crate::layers::{ActLayer, Block, Mlp, MlpLayer, SelfAttention, dropout, join, layer_norm, linear, prepend};

/// No side, width or count of a model comes near it; it keeps products of them from overflowing.
const MAX_SIZE: usize = 65_536;

/// Deeper than any that was published.
const MAX_DEPTH: usize = 1024;

/// The widest head that the attention kernels hold in registers and workgroup memory.
const MAX_HEAD_DIM: usize = 256;

/// How the tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalPool {
    /// The mean over the patch tokens.
    #[default]
    Avg,
    /// The class token; the distillation token has a classifier of its own.
    Token,
    /// The class token and, behind it, the mean over the patch tokens: what DINOv2's classifiers see.
    TokenAvg,
}

/// How the weights of linear layers begin; timm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with standard deviation 0.02: DeiT's, for widths from 192 on. timm's `trunc_normal_` cuts at 2, not at two
    /// deviations, which is a hundred of them and never reached; so it is with the position table and the tokens in front.
    #[default]
    Timm,
    /// Xavier uniform and a classifier of zeros: JAX's, which narrow models learn faster from.
    Jax,
}

/// A Vision Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Height and width of the input, pixels: one number for a square, else `[height, width]`.
    pub image_size: ImageSize,
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
    /// What stands between the layers of the MLP.
    pub mlp_layer: MlpLayer,
    /// Which GELU that is.
    pub act_layer: ActLayer,
    /// Outputs of the classifier; 0 for none, and what is pooled comes out.
    pub num_classes: usize,
    /// Bias in the classifier.
    pub head_bias: bool,
    /// Prepend a learned class token.
    pub class_token: bool,
    /// Behind the class token a distillation token (DeiT).
    pub dist_token: bool,
    /// A classifier for the distillation token; the logits are the mean of both.
    pub head_dist: bool,
    /// Further learned tokens in front of the patches (registers, Darcet et al. 2024).
    pub reg_tokens: usize,
    /// The position table is for patches alone.
    pub no_embed_class: bool,
    /// How the tokens become one vector.
    pub global_pool: GlobalPool,
    /// A norm before the first block; the patch embedding then has no bias.
    pub pre_norm: bool,
    /// The last norm comes after the pooling (`fc_norm`) instead of before it (`norm`).
    pub fc_norm: bool,
    /// Epsilon of the norms: 1e-6 in timm, 1e-12 in Hugging Face's ViTs.
    pub norm_eps: f64,
    /// Bias in the projection to queries, keys and values.
    pub qkv_bias: bool,
    /// Queries and keys are normalised head by head.
    pub qk_norm: bool,
    /// Where the factors of the branches' channels begin (layer scale); 0 for none.
    pub init_values: f64,
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
            image_size: ImageSize::square(224),
            in_chans: 3,
            patch_size: 16,
            embed_dim: 192,
            depth: 12,
            num_heads: 3,
            mlp_ratio: 4.0,
            mlp_layer: MlpLayer::Mlp,
            act_layer: ActLayer::Gelu,
            num_classes: 1000,
            head_bias: true,
            class_token: false,
            dist_token: false,
            head_dist: false,
            reg_tokens: 0,
            no_embed_class: false,
            global_pool: GlobalPool::Avg,
            pre_norm: false,
            fc_norm: false,
            norm_eps: 1e-6,
            qkv_bias: true,
            qk_norm: false,
            init_values: 0.0,
            weight_init: WeightInit::Timm,
            drop_rate: 0.0,
            drop_path_rate: 0.0,
            attention_layers: Vec::new(),
        }
    }
}

impl VitConfig {
    /// Rows and columns of patches.
    pub fn grid_size(&self) -> [usize; 2] {
        self.image_size.grid(self.patch_size)
    }

    /// Patch tokens, without those in front.
    pub fn num_patches(&self) -> usize {
        self.grid_size().iter().product()
    }

    /// Tokens in front of the patches: class token, distillation token, registers, in this order.
    pub fn num_prefix_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.dist_token) + self.reg_tokens
    }

    /// Rows of the position table.
    pub fn num_positions(&self) -> usize {
        self.num_patches() + if self.no_embed_class { 0 } else { self.num_prefix_tokens() }
    }

    /// Width of what is pooled, which the classifier sees.
    pub fn num_features(&self) -> usize {
        if self.global_pool == GlobalPool::TokenAvg { 2 * self.embed_dim } else { self.embed_dim }
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Hidden width of the MLP.
    pub fn mlp_hidden(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio).round() as usize
    }
}

impl Family for VitConfig {
    fn check(&self, attention: &AttentionConfig) -> Result<()> {
        let m = self;
        for (key, value, range) in [
            ("model.image_size", m.image_size.height, 1..=MAX_SIZE),
            ("model.image_size", m.image_size.width, 1..=MAX_SIZE),
            ("model.patch_size", m.patch_size, 1..=MAX_SIZE),
            ("model.embed_dim", m.embed_dim, 1..=MAX_SIZE),
            ("model.depth", m.depth, 1..=MAX_DEPTH),
            ("model.num_heads", m.num_heads, 1..=MAX_SIZE),
            ("model.num_classes", m.num_classes, 0..=MAX_SIZE),
            ("model.reg_tokens", m.reg_tokens, 0..=MAX_SIZE),
        ] {
            count(key, value, range)?;
        }
        ensure(matches!(m.in_chans, 1 | 3), || {
            format!("model.in_chans is {}; images are grey (1) or RGB (3)", m.in_chans)
        })?;
        ensure([m.image_size.height, m.image_size.width].iter().all(|side| side.is_multiple_of(m.patch_size)), || {
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
        ensure(m.mlp_layer == MlpLayer::Mlp || m.mlp_hidden().is_multiple_of(2), || {
            format!(
                "model.mlp_layer = \"swiglu-packed\" halves the MLP's hidden width, and model.mlp_ratio = {} gives the odd \
                 {}; choose another ratio",
                m.mlp_ratio,
                m.mlp_hidden()
            )
        })?;
        m.check_tokens()?;
        above_zero("model.norm_eps", m.norm_eps)?;
        zero_or_above("model.init_values", m.init_values)?;
        share("model.drop_rate", m.drop_rate)?;
        share("model.drop_path_rate", m.drop_path_rate)?;
        m.check_sizes(usize::MAX as u64)?;
        LayerAttention::check(&m.attention_layers, attention, m.depth, m.num_patches())
    }

    fn image_shape(&self) -> ImageShape {
        let ImageSize { height, width } = self.image_size;
        ImageShape { channels: self.in_chans, height, width }
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn layer(&self, _: usize) -> LayerShape {
        let (grid, prefix) = (self.grid_size(), self.num_prefix_tokens());
        LayerShape { grid, prefix, heads: self.num_heads, head_dim: self.head_dim() }
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

/// A Vision Transformer: what to record for images [batch, channels, height, width].
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

    /// Patch embedding (a convolution whose stride is its size, so a matmul), position table and the tokens in front.
    fn embed(&self, tape: &mut Tape<'_>, images: Tensor) -> Tensor {
        let VitConfig { patch_size: p, in_chans, embed_dim: dim, pre_norm, .. } = self.config;
        let patches = tape.apply(Patchify { patch: p }, &[images]);
        let tokens = tape.scope("patch_embed", |tape| {
            tape.scope("proj", |tape| {
                let inputs = in_chans * p * p;
                let weight = tape.parameter("weight", [dim, in_chans, p, p], Init::FanIn(inputs));
                let bias = (!pre_norm).then(|| tape.parameter("bias", [dim], Init::FanIn(inputs)));
                let inputs = [Some(patches), Some(weight.reshape([dim, inputs])), bias];
                tape.apply(Linear, &inputs.into_iter().flatten().collect::<Vec<_>>())
            })
        });
        let table = [1, self.config.num_positions(), dim];
        let position = tape.parameter_without_decay("pos_embed", table, self.init_of_tokens());
        let embedded = match self.prefix(tape) {
            Some(prefix) if self.config.no_embed_class => {
                let placed = tape.apply(PositionEmbedding, &[tokens, position]);
                prepend(tape, prefix, placed)
            }
            Some(prefix) => tape.apply(PositionEmbedding, &[tokens, position, prefix]),
            None => tape.apply(PositionEmbedding, &[tokens, position]),
        };
        let embedded = dropout(tape, embedded, self.config.drop_rate);
        if pre_norm { layer_norm(tape, "norm_pre", embedded, self.eps()) } else { embedded }
    }

    /// The tokens in front of the patches, [1, number, width].
    fn prefix(&self, tape: &mut Tape<'_>) -> Option<Tensor> {
        let VitConfig { class_token, dist_token, reg_tokens, embed_dim, .. } = self.config;
        let kinds = [
            ("cls_token", usize::from(class_token)),
            ("dist_token", usize::from(dist_token)),
            ("reg_token", reg_tokens),
        ];
        let tokens: Vec<Tensor> = kinds
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| tape.parameter_without_decay(name, [1, count, embed_dim], self.init_of_tokens()))
            .collect();
        match tokens[..] {
            [] => None,
            [token] => Some(token),
            _ => Some(join(tape, &tokens)),
        }
    }

    /// What the tokens [batch, tokens, width] become: [batch, features].
    fn pool(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let (batch, prefix) = (x.dims()[0], self.config.num_prefix_tokens());
        let class_token = TokenPooling { first: 0, count: 1 };
        let mean = TokenPooling { first: prefix, count: x.dims()[1] - prefix };
        match self.config.global_pool {
            GlobalPool::Token => tape.apply(class_token, &[x]),
            GlobalPool::Avg => tape.apply(mean, &[x]),
            GlobalPool::TokenAvg => {
                let parts = [tape.apply(class_token, &[x]), tape.apply(mean, &[x])];
                let parts = parts.map(|part| part.reshape([batch, 1, part.last()]));
                join(tape, &parts).reshape([batch, 2 * x.last()])
            }
        }
    }

    /// The classifier called `name`, of features [batch, width].
    fn head(&self, tape: &mut Tape<'_>, name: &str, features: Tensor) -> Tensor {
        let features = if self.config.fc_norm { layer_norm(tape, "fc_norm", features, self.eps()) } else { features };
        let features = dropout(tape, features, self.config.drop_rate);
        if self.config.num_classes == 0 {
            return features;
        }
        tape.scope(name, |tape| {
            let init = if self.config.weight_init == WeightInit::Jax { Init::Zeros } else { self.init() };
            linear(tape, features, self.config.num_classes, self.config.head_bias, init)
        })
    }

    /// Initial weights of the linear layers.
    fn init(&self) -> Init {
        match self.config.weight_init {
            WeightInit::Timm => Init::Normal(0.02),
            WeightInit::Jax => Init::XavierUniform,
        }
    }

    /// Initial values of the position table and of the tokens in front.
    fn init_of_tokens(&self) -> Init {
        match self.config.weight_init {
            WeightInit::Timm => Init::Normal(0.02),
            WeightInit::Jax => Init::TruncNormal(0.02),
        }
    }

    fn eps(&self) -> f32 {
        self.config.norm_eps as f32
    }

    fn block(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, hook: &mut Hook<'_>) -> Tensor {
        let VitConfig { num_heads: heads, qkv_bias, drop_rate, drop_path_rate, depth, mlp_layer, act_layer, .. } =
            self.config;
        let (context, init) = (self.config.layer(layer).context(), self.init());
        let mechanism = &*self.attention[layer];
        let qk_norm = self.config.qk_norm.then(|| self.eps());
        let attention =
            SelfAttention { layer, mechanism, context: &context, heads, qkv_bias, qk_norm, drop_rate, init };
        let mlp = Mlp { layer: mlp_layer, act: act_layer, hidden: self.config.mlp_hidden(), drop_rate, init };
        let drop_path = drop_path_rate * layer as f64 / depth.saturating_sub(1).max(1) as f64;
        Block { attention, mlp, drop_path, layer_scale: self.config.init_values, eps: self.eps() }.record(tape, x, hook)
    }
}

impl Network for Vit {
    fn forward_hooked(&self, tape: &mut Tape<'_>, inputs: &[Tensor], hook: &mut Hook<'_>) -> Outputs {
        let mut x = self.embed(tape, inputs[0]);
        tape.rec.name("tokens", x);
        for layer in 0..self.config.depth {
            x = tape.scope("blocks", |tape| {
                tape.scope(&layer.to_string(), |tape| tape.checkpoint(|tape| self.block(tape, x, layer, &mut *hook)))
            });
            tape.rec.name(&format!("blocks.{layer}"), x);
        }
        if !self.config.fc_norm {
            x = layer_norm(tape, "norm", x, self.eps());
        }
        let pooled = self.pool(tape, x);
        tape.rec.name("pooled", pooled);
        let logits = self.head(tape, "head", pooled);
        if !self.config.head_dist {
            return Outputs::of("logits", logits).and("features", x);
        }
        let distilled = tape.apply(TokenPooling { first: 1, count: 1 }, &[x]);
        let distilled = self.head(tape, "head_dist", distilled);
        let heads = [logits, distilled].map(|x| x.reshape([x.dims()[0], 1, x.last()]));
        let both = join(tape, &heads);
        let mean = tape.apply(TokenPooling { first: 0, count: 2 }, &[both]);
        // Hugging Face's names.
        Outputs::of("logits", mean).and("features", x).and("cls_logits", logits).and("distillation_logits", distilled)
    }
}
