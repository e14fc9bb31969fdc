//! The Pyramid Vision Transformer v2 (Wang et al. 2022): four stages, each with half the rows and columns of the one before.
//!
//! Pre-norm blocks: x += attention(norm1 x), x += mlp(norm2 x), the MLP with a depthwise convolution; a norm after each
//! stage, the mean over the last one's tokens, a linear classifier. Keys and values may be of fewer tokens than the queries
//! (spatial reduction, SRA). Names of the parameters are timm's; LARA's landmark generators are `attn.q_landmarks` and
//! `attn.k_landmarks`. The defaults are the model of the LARA paper: PVTv2-B3 with twice the heads and no reduction, the
//! configured attention in three stages and exact softmax in the last.

use lara_runtime::attention::{
    Attention, AttentionConfig, Context, Grid, JoinHeads, Landmarks, MechanismKind, Pooling, Qkv, SplitHeads, mechanism,
};
use lara_runtime::ops::{Channels, Gelu, Residual, TokenPooling, Windows};
use lara_runtime::{Init, Tape, Tensor};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::attention::LayerAttention;
use crate::check::{count, ensure, share, tensor};
use crate::data::ImageShape;
use crate::error::Result;
use crate::family::{Family, Hook, LayerShape, Network, Outputs, Site};
use crate::image_size::ImageSize;
use crate::layers::{Conv, ConvMlp, OverlapPatchEmbed, drop_path, dropout, layer_norm, linear};

/// Stages of every PVT.
const STAGES: usize = 4;

/// Epsilon of the norms of blocks and stages, and of those behind convolutions.
const EPS: f32 = 1e-6;
const CONV_EPS: f32 = 1e-5;

/// Rows and columns of keys under `linear`.
const POOLED: usize = 7;

/// No side, width or count of a model comes near it; it keeps products of them from overflowing.
const MAX_SIZE: usize = 65_536;

/// Deeper than any that was published.
const MAX_DEPTH: usize = 1024;

/// 4 GiB of f32: more than an adapter binds at once.
const MAX_TENSOR: u64 = 1 << 30;

/// The widest head that the attention kernels hold in registers and workgroup memory.
const MAX_HEAD_DIM: usize = 256;

/// Initial weights of linear layers.
const LINEAR: Init = Init::Normal(0.02);

/// A PVTv2. A list has a number for each stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PvtConfig {
    /// Height and width of the input, pixels.
    pub image_size: ImageSize,
    /// Channels of the input: 1 (grey) or 3 (RGB).
    pub in_chans: usize,
    /// Widths of a token.
    pub embed_dims: [usize; STAGES],
    /// Numbers of blocks.
    pub depths: [usize; STAGES],
    /// Heads of each attention.
    pub num_heads: [usize; STAGES],
    /// Hidden widths of the MLP as multiples of `embed_dims`.
    pub mlp_ratios: [f64; STAGES],
    /// Rows (and columns) of tokens that become one row (and column) of keys; 1 leaves them as they are.
    pub sr_ratios: [usize; STAGES],
    /// Keys of 7x7 pooled tokens in every stage, whatever `sr_ratios` says, and a ReLU in the MLP: PVTv2-li.
    pub linear: bool,
    /// Outputs of the classifier.
    pub num_classes: usize,
    /// Bias in the projections to queries, keys and values.
    pub qkv_bias: bool,
    /// Dropout before the classifier and after the projections.
    pub drop_rate: f64,
    /// Stochastic depth of the last block; it grows linearly from 0 at the first.
    pub drop_path_rate: f64,
    /// What differs from `[attention]`: an entry for each stage or for each block, or none. `{}` changes nothing.
    pub attention_layers: Vec<LayerAttention>,
}

impl Default for PvtConfig {
    fn default() -> Self {
        let as_configured = LayerAttention::Settings(Table::new());
        let exact = LayerAttention::Mechanism(MechanismKind::Softmax);
        Self {
            image_size: ImageSize::square(224),
            in_chans: 3,
            embed_dims: [64, 128, 320, 512],
            depths: [3, 4, 18, 3],
            num_heads: [2, 4, 10, 16],
            mlp_ratios: [8.0, 8.0, 4.0, 4.0],
            sr_ratios: [1; STAGES],
            linear: false,
            num_classes: 1000,
            qkv_bias: true,
            drop_rate: 0.0,
            drop_path_rate: 0.0,
            attention_layers: vec![as_configured.clone(), as_configured.clone(), as_configured, exact],
        }
    }
}

impl PvtConfig {
    /// The convolution that begins a stage.
    fn patches(stage: usize) -> Windows {
        if stage == 0 { Windows::square(7, 4, 3) } else { Windows::square(3, 2, 1) }
    }

    /// Rows and columns of a stage's tokens.
    fn grid(&self, stage: usize) -> [usize; 2] {
        let ImageSize { height, width } = self.image_size;
        let sides = (0..=stage).fold([1, height, width], |grid, at| Self::patches(at).count(grid));
        [sides[1], sides[2]]
    }

    /// Rows and columns of a stage's keys, if they are not the queries' tokens.
    fn key_grid(&self, stage: usize) -> Option<[usize; 2]> {
        let ratio = self.sr_ratios[stage];
        if self.linear {
            return Some([POOLED; 2]);
        }
        (ratio > 1).then(|| self.grid(stage).map(|side| side / ratio))
    }

    fn hidden(&self, stage: usize) -> usize {
        (self.embed_dims[stage] as f64 * self.mlp_ratios[stage]).round() as usize
    }

    /// The stage of a block; the last where there are not so many.
    fn stage_of(&self, layer: usize) -> usize {
        let ends = self.depths.iter().scan(0, |end, depth| {
            *end += depth;
            Some(*end)
        });
        ends.take_while(|end| *end <= layer).count().min(STAGES - 1)
    }

    /// Which of `attention_layers` speaks of a block.
    fn entry(&self, layer: usize) -> usize {
        if self.attention_layers.len() == STAGES { self.stage_of(layer) } else { layer }
    }

    fn check_stage(&self, stage: usize) -> Result<()> {
        let (dim, heads, grid) = (self.embed_dims[stage], self.num_heads[stage], self.grid(stage));
        for (key, value, most) in [
            ("embed_dims", dim, MAX_SIZE),
            ("depths", self.depths[stage], MAX_DEPTH),
            ("num_heads", heads, MAX_SIZE),
            ("sr_ratios", self.sr_ratios[stage], MAX_SIZE),
        ] {
            count(&format!("model.{key}[{stage}]"), value, 1..=most)?;
        }
        ensure(dim.is_multiple_of(heads), || {
            format!(
                "model.embed_dims[{stage}] = {dim} cannot be split into model.num_heads[{stage}] = {heads} heads; choose a \
                 number that divides it"
            )
        })?;
        ensure(dim / heads <= MAX_HEAD_DIM, || {
            format!(
                "a head of model.embed_dims[{stage}] / model.num_heads[{stage}] = {} is wider than {MAX_HEAD_DIM}; use at \
                 least {} heads",
                dim / heads,
                dim.div_ceil(MAX_HEAD_DIM)
            )
        })?;
        let ratio = self.mlp_ratios[stage];
        ensure(ratio.is_finite() && (1..=16 * MAX_SIZE).contains(&self.hidden(stage)), || {
            format!("model.mlp_ratios[{stage}] = {ratio} gives the MLP no usable hidden width; 4 is usual")
        })?;
        ensure(self.key_grid(stage).is_none_or(|keys| !keys.contains(&0)), || {
            format!(
                "model.sr_ratios[{stage}] = {} leaves no keys of that stage's {} x {} tokens; choose at most {}",
                self.sr_ratios[stage],
                grid[0],
                grid[1],
                grid[0].min(grid[1])
            )
        })?;
        self.check_tensors(stage)
    }

    /// Products are taken in 64 bits, for programs of 32, too. The single sizes were checked before.
    fn check_tensors(&self, stage: usize) -> Result<()> {
        let [dim, hidden, ratio] =
            [self.embed_dims[stage], self.hidden(stage), self.sr_ratios[stage]].map(|x| x as u64);
        let inputs = if stage == 0 { self.in_chans } else { self.embed_dims[stage - 1] } as u64;
        let tokens = self.grid(stage).iter().map(|&side| side as u64).product::<u64>();
        let kernel = Self::patches(stage).kernel.iter().map(|&side| side as u64).product::<u64>();
        let (lower, width) = ("model.embed_dims or model.image_size", "model.embed_dims");
        for (what, sizes, lower) in [
            ("the windows of the patch embedding", &[tokens, inputs, kernel][..], lower),
            ("the weight of the patch embedding", &[dim, inputs, kernel], width),
            ("the queries", &[tokens, dim], lower),
            ("the keys and values", &[tokens, 2, dim], lower),
            ("the weight of the reduction", &[dim, dim, ratio, ratio], "model.embed_dims or model.sr_ratios"),
            ("the MLP's hidden layer", &[tokens, hidden], lower),
            ("a weight of the MLP", &[hidden, dim], "model.embed_dims or model.mlp_ratios"),
            ("the classifier", &[self.num_classes as u64, dim], "model.embed_dims or model.num_classes"),
        ] {
            tensor(&format!("{what} of stage {stage}"), sizes, MAX_TENSOR, lower)?;
        }
        Ok(())
    }
}

impl Family for PvtConfig {
    fn check(&self, attention: &AttentionConfig) -> Result<()> {
        let ImageSize { height, width } = self.image_size;
        count("model.image_size", height, 1..=MAX_SIZE)?;
        count("model.image_size", width, 1..=MAX_SIZE)?;
        count("model.num_classes", self.num_classes, 1..=MAX_SIZE)?;
        ensure(matches!(self.in_chans, 1 | 3), || {
            format!("model.in_chans is {}; images are grey (1) or RGB (3)", self.in_chans)
        })?;
        tensor("an image", &[self.in_chans, height, width].map(|size| size as u64), MAX_TENSOR, "model.image_size")?;
        share("model.drop_rate", self.drop_rate)?;
        share("model.drop_path_rate", self.drop_path_rate)?;
        (0..STAGES).try_for_each(|stage| self.check_stage(stage))?;
        let (given, blocks) = (self.attention_layers.len(), self.depth());
        ensure([0, STAGES, blocks].contains(&given), || {
            format!(
                "model.attention_layers has {given} entries for {STAGES} stages and {blocks} blocks; give one for each stage \
                 or for each block"
            )
        })?;
        (0..blocks).try_for_each(|layer| {
            let places = self.layer(layer).places();
            LayerAttention::check_entry(&self.attention_layers, attention, self.entry(layer), places)
        })
    }

    fn image_shape(&self) -> ImageShape {
        let ImageSize { height, width } = self.image_size;
        ImageShape { channels: self.in_chans, height, width }
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn depth(&self) -> usize {
        self.depths.iter().sum()
    }

    fn layer(&self, layer: usize) -> LayerShape {
        let stage = self.stage_of(layer);
        let heads = self.num_heads[stage];
        LayerShape { grid: self.grid(stage), prefix: 0, heads, head_dim: self.embed_dims[stage] / heads }
    }

    fn attention_layers(&self) -> &[LayerAttention] {
        &self.attention_layers
    }

    fn attention_of(&self, base: &AttentionConfig, layer: usize) -> Result<AttentionConfig> {
        LayerAttention::resolve(&self.attention_layers, base, self.entry(layer))
    }

    /// A stage is a layer, as in timm.
    fn layers_above(&self) -> Vec<(String, usize)> {
        let stages = (0..STAGES).map(|stage| (format!("stages.{stage}."), STAGES - stage));
        [("head".to_owned(), 0)].into_iter().chain(stages).chain([(String::new(), STAGES + 1)]).collect()
    }

    fn clear_attention_layers(&mut self) {
        self.attention_layers.clear();
    }

    fn build(&self, attention: &AttentionConfig) -> Result<Box<dyn Network>> {
        Ok(Box::new(Pvt::new(self, attention)?))
    }
}

/// A PVTv2: what to record for images [batch, channels, height, width].
#[derive(Debug)]
pub struct Pvt {
    config: PvtConfig,
    attention: Vec<Box<dyn Attention>>,
}

impl Pvt {
    /// The model of these settings, with `attention` in every block for which they do not say otherwise.
    ///
    /// # Errors
    /// If `attention_layers` does not fit (see [`LayerAttention::resolve`]), or settings of attention contradict each other.
    pub fn new(config: &PvtConfig, attention: &AttentionConfig) -> Result<Self> {
        let attention = (0..config.depth())
            .map(|layer| Ok(mechanism(&config.attention_of(attention, layer)?)?))
            .collect::<Result<_>>()?;
        Ok(Pvt { config: config.clone(), attention })
    }

    /// Initial weights of a convolution: variance 2 / (places of a window x outputs that each input reaches).
    fn conv_init(windows: Windows, outputs: usize) -> Init {
        let fan_out = outputs * windows.kernel.iter().product::<usize>();
        Init::Normal((2.0 / fan_out as f32).sqrt())
    }

    fn conv(windows: Windows, outputs: usize) -> Conv {
        Conv { outputs, windows, init: Self::conv_init(windows, outputs) }
    }

    /// Images or the tokens of the stage before, to tokens.
    fn embed(&self, tape: &mut Tape<'_>, x: Tensor, stage: usize) -> Tensor {
        let proj = Self::conv(PvtConfig::patches(stage), self.config.embed_dims[stage]);
        let channels = match stage.checked_sub(1).map(|before| self.config.grid(before)) {
            Some([rows, columns]) => Channels::Last([1, rows, columns]),
            None => Channels::First,
        };
        OverlapPatchEmbed { proj, eps: CONV_EPS }.record(tape, x, channels)
    }

    /// What keys and values are made of: the tokens, or fewer.
    fn reduce(&self, tape: &mut Tape<'_>, x: Tensor, stage: usize) -> Tensor {
        let (width, [rows, columns]) = (x.last(), self.config.grid(stage));
        let ratio = self.config.sr_ratios[stage];
        if self.config.linear {
            let pooling = Pooling::Grid { grid: [rows, columns], side: POOLED };
            let [batch, tokens] = [x.dims()[0], x.dims()[1]];
            let pooled = tape.apply(Landmarks { prefix: 0, pooling }, &[x.reshape([batch, 1, tokens, width])]);
            let pooled = pooled.reshape([batch, pooled.dims()[2], width]);
            let conv = Self::conv(Windows::square(1, 1, 0), width);
            let reduced = tape.scope("sr", |tape| conv.record(tape, pooled, Channels::Last([1, POOLED, POOLED])));
            let normed = layer_norm(tape, "norm", reduced, CONV_EPS);
            return tape.apply(Gelu, &[normed]);
        }
        if ratio == 1 {
            return x;
        }
        let conv = Self::conv(Windows::square(ratio, ratio, 0), width);
        let reduced = tape.scope("sr", |tape| conv.record(tape, x, Channels::Last([1, rows, columns])));
        layer_norm(tape, "norm", reduced, CONV_EPS)
    }

    fn attention(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, hook: &mut Hook<'_>) -> Tensor {
        let stage = self.config.stage_of(layer);
        let (heads, bias, width) = (self.config.num_heads[stage], self.config.qkv_bias, x.last());
        let queries = tape.scope("q", |tape| linear(tape, x, width, bias, LINEAR));
        let q = tape.apply(SplitHeads { heads, parts: 1 }, &[queries]);
        let reduced = self.reduce(tape, x, stage);
        let packed = tape.scope("kv", |tape| linear(tape, reduced, 2 * width, bias, LINEAR));
        let parts = tape.apply_all(SplitHeads { heads, parts: 2 }, &[packed]);
        let qkv = Qkv { q, k: parts[0], v: parts[1] };
        if tape.inspects() {
            tape.watch(qkv.v);
        }
        let key_grid = self.config.key_grid(stage).map(Grid::Plane);
        let context = Context { key_grid, ..self.config.layer(layer).context() };
        let mechanism = &*self.attention[layer];
        let output = mechanism.attend(tape, qkv, &context);
        hook(tape, &Site { layer, mechanism, qkv, context: &context, output });
        let joined = tape.apply(JoinHeads, &[output]);
        let projected = tape.scope("proj", |tape| linear(tape, joined, width, true, LINEAR));
        dropout(tape, projected, self.config.drop_rate)
    }

    fn mlp(&self, stage: usize) -> ConvMlp {
        let hidden = self.config.hidden(stage);
        ConvMlp {
            hidden,
            grid: self.config.grid(stage),
            relu: self.config.linear,
            drop_rate: self.config.drop_rate,
            init: LINEAR,
            // Each channel reaches one output.
            conv_init: Self::conv_init(Windows::square(3, 1, 1), 1),
        }
    }

    fn block(&self, tape: &mut Tape<'_>, x: Tensor, layer: usize, hook: &mut Hook<'_>) -> Tensor {
        let last = self.config.depth().saturating_sub(1).max(1) as f64;
        let rate = self.config.drop_path_rate * layer as f64 / last;
        let normed = layer_norm(tape, "norm1", x, EPS);
        let branch = tape.scope("attn", |tape| self.attention(tape, normed, layer, hook));
        let branch = drop_path(tape, branch, rate);
        let x = tape.apply(Residual, &[x, branch]);
        let normed = layer_norm(tape, "norm2", x, EPS);
        let branch = tape.scope("mlp", |tape| self.mlp(self.config.stage_of(layer)).record(tape, normed));
        let branch = drop_path(tape, branch, rate);
        tape.apply(Residual, &[x, branch])
    }

    fn stage(&self, tape: &mut Tape<'_>, mut x: Tensor, stage: usize, hook: &mut Hook<'_>) -> Tensor {
        if stage > 0 {
            x = tape.scope("downsample", |tape| self.embed(tape, x, stage));
        }
        let first: usize = self.config.depths[..stage].iter().sum();
        for at in 0..self.config.depths[stage] {
            let number = at.to_string();
            x = tape.scope("blocks", |tape| {
                tape.scope(&number, |tape| tape.checkpoint(|tape| self.block(tape, x, first + at, &mut *hook)))
            });
        }
        layer_norm(tape, "norm", x, EPS)
    }
}

impl Network for Pvt {
    fn forward_hooked(&self, tape: &mut Tape<'_>, inputs: &[Tensor], hook: &mut Hook<'_>) -> Outputs {
        let mut x = tape.scope("patch_embed", |tape| self.embed(tape, inputs[0], 0));
        for stage in 0..STAGES {
            let number = stage.to_string();
            x = tape.scope("stages", |tape| tape.scope(&number, |tape| self.stage(tape, x, stage, &mut *hook)));
        }
        let pooled = tape.apply(TokenPooling { first: 0, count: x.dims()[1] }, &[x]);
        let pooled = dropout(tape, pooled, self.config.drop_rate);
        let logits = tape.scope("head", |tape| linear(tape, pooled, self.config.num_classes, true, LINEAR));
        Outputs::of("logits", logits).and("features", x)
    }
}
