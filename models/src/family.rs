//! What is asked of every model, whichever it is: of its settings, and of what it records.

use lara_runtime::attention::{Attention, AttentionConfig, Context, Grid, Qkv};
use lara_runtime::{Tape, Tensor};

use crate::attention::LayerAttention;
use crate::data::ImageShape;
use crate::error::Result;

/// The settings of a model that classifies images: `[model]` of a configuration, without the name.
pub trait Family: std::fmt::Debug + Send + Sync {
    /// Checks that the values make sense, alone and together with those of attention. The error says which key, its
    /// value and what is allowed.
    ///
    /// # Errors
    /// The first value that does not.
    fn check(&self, attention: &AttentionConfig) -> Result<()>;

    /// The shape of its images.
    fn image_shape(&self) -> ImageShape;

    /// Outputs of its classifier.
    fn num_classes(&self) -> usize;

    /// Number of attention blocks.
    fn depth(&self) -> usize;

    /// What attention in block `layer` works on.
    fn layer(&self, layer: usize) -> LayerShape;

    /// Attention of single blocks over what `[attention]` says of all: empty, or one for each block.
    fn attention_layers(&self) -> &[LayerAttention];

    /// The same attention in every block.
    fn clear_attention_layers(&mut self);

    /// The model with these settings.
    ///
    /// # Errors
    /// If the attention of a single block does not fit (see [`LayerAttention::resolve`]).
    fn build(&self, attention: &AttentionConfig) -> Result<Box<dyn Classifier>>;
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

/// A model: what to record for images.
pub trait Classifier: std::fmt::Debug {
    /// Records the model for normalised images [batch, channels, height, width], lets `hook` see every block's
    /// attention, and returns the logits [batch, classes].
    fn forward_hooked(&self, tape: &mut Tape<'_>, images: Tensor, hook: &mut Hook<'_>) -> Tensor;

    /// [`Classifier::forward_hooked`] that nobody looks into.
    fn forward(&self, tape: &mut Tape<'_>, images: Tensor) -> Tensor {
        self.forward_hooked(tape, images, &mut |_, _| {})
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
