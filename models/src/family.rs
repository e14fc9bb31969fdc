//! What is asked of every model, whichever it is: of its settings, and of what it records.

use lara_runtime::attention::{Attention, AttentionConfig, Context, Grid, Qkv};
use lara_runtime::{Shape, Tape, Tensor};

use crate::attention::LayerAttention;
use crate::data::ImageShape;
use crate::error::Result;

/// The settings of a model: `[model]` of a configuration, without the name.
pub trait Family: std::fmt::Debug + Send + Sync {
    /// Checks that the values make sense, alone and together with those of attention. The error says which key, its
    /// value and what is allowed.
    ///
    /// # Errors
    /// The first value that does not.
    fn check(&self, attention: &AttentionConfig) -> Result<()>;

    /// What it takes for `batch` samples, in the order of [`Network::forward_hooked`].
    fn inputs(&self, batch: usize) -> Vec<Input> {
        vec![Input { name: "images", shape: Shape::from(self.image_shape().batch(batch)) }]
    }

    /// [`Family::inputs`] as tensors of a recording, under their names.
    fn declare(&self, tape: &mut Tape<'_>, batch: usize) -> Vec<Tensor> {
        self.inputs(batch).into_iter().map(|input| tape.input(input.name, input.shape)).collect()
    }

    /// The shape of its images.
    fn image_shape(&self) -> ImageShape;

    /// Outputs of its classifier.
    fn num_classes(&self) -> usize;

    /// Number of attention blocks.
    fn depth(&self) -> usize;

    /// What attention in block `layer` works on.
    fn layer(&self, layer: usize) -> LayerShape;

    /// Attention of single blocks over what `[attention]` says of all: empty, or one for each block or each stage of blocks.
    fn attention_layers(&self) -> &[LayerAttention];

    /// The attention of block `layer`: `base`, with what [`Family::attention_layers`] says of this block.
    ///
    /// # Errors
    /// If the list names a key that attention does not have, or gives one a value of the wrong type.
    fn attention_of(&self, base: &AttentionConfig, layer: usize) -> Result<AttentionConfig> {
        LayerAttention::resolve(self.attention_layers(), base, layer)
    }

    /// The same attention in every block.
    fn clear_attention_layers(&mut self);

    /// How many layers lie above a parameter, for learning rates that fall from layer to layer: for the first of these
    /// beginnings that its name has. As timm counts for its ViT: classifier, last block and norm, .., first block, the rest.
    fn layers_above(&self) -> Vec<(String, usize)> {
        let depth = self.depth();
        let named = [("head", 0), ("fc_norm", 0), ("norm", 1)].map(|(name, above)| (name.to_owned(), above));
        let blocks = (0..depth).map(|block| (format!("blocks.{block}."), depth - block));
        named.into_iter().chain(blocks).chain([(String::new(), depth + 1)]).collect()
    }

    /// The model with these settings.
    ///
    /// # Errors
    /// If the attention of a single block does not fit (see [`LayerAttention::resolve`]).
    fn build(&self, attention: &AttentionConfig) -> Result<Box<dyn Network>>;
}

/// One thing that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name: `images`, `ids`, `features`.
    pub name: &'static str,
    /// Its shape, the batch first.
    pub shape: Shape,
}

/// The tokens and heads of one attention block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Rows and columns of its tokens.
    pub grid: [usize; 2],
    /// Tokens in front of them: 1 for a class token.
    pub prefix: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl LayerShape {
    /// Tokens that stand for a place.
    pub fn places(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// All tokens.
    pub fn tokens(&self) -> usize {
        self.prefix + self.places()
    }

    /// The same for a mechanism.
    pub fn context(&self) -> Context {
        Context { grid: Grid::Plane(self.grid), prefix: self.prefix, ..Context::default() }
    }
}

/// A model: what to record for its inputs.
pub trait Network: std::fmt::Debug {
    /// Records the model for [`Family::inputs`], in their order, lets `hook` see every block's attention, and returns what
    /// comes out: first what its task is about (a classifier's `logits` [batch, classes]).
    fn forward_hooked(&self, tape: &mut Tape<'_>, inputs: &[Tensor], hook: &mut Hook<'_>) -> Outputs;

    /// [`Network::forward_hooked`] that nobody looks into.
    fn forward(&self, tape: &mut Tape<'_>, inputs: &[Tensor]) -> Outputs {
        self.forward_hooked(tape, inputs, &mut |_, _| {})
    }
}

/// What a model gives, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(Vec<(&'static str, Tensor)>);

impl Outputs {
    /// One output: what the model's task is about.
    pub fn of(name: &'static str, tensor: Tensor) -> Self {
        Self(vec![(name, tensor)])
    }

    /// One more, for whoever asks for it by name.
    #[must_use]
    pub fn and(mut self, name: &'static str, tensor: Tensor) -> Self {
        self.0.push((name, tensor));
        self
    }

    /// What the model's task is about.
    pub fn first(&self) -> Tensor {
        self.0[0].1
    }

    /// The output of this name.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Tensor)> {
        self.0.iter().copied()
    }
}

/// A block's attention while it is recorded: what went in, what came out.
#[derive(Debug)]
pub struct Site<'a> {
    /// Number of the block, from 0.
    pub layer: usize,
    /// The mechanism.
    pub mechanism: &'a dyn Attention,
    /// What went in; pin what is to be read.
    pub qkv: Qkv,
    /// Where the tokens lie.
    pub context: &'a Context,
    /// What came out, [batch, heads, tokens, head dim].
    pub output: Tensor,
}

/// Called right after a block's attention, inside the block's scope, and free to record more.
pub type Hook<'h> = dyn FnMut(&mut Tape<'_>, &Site<'_>) + 'h;
