//! The model that is looked at, compiled: one image through it, the rows of the queries in front, and what came back.

use lara_explain::{Head, Inspector, Query};
use lara_models::softmax;

use crate::error::Result;
use crate::job::{Job, Stage};

/// Runs of a fresh plan until its time means something.
const WARM_UP: usize = 3;
/// Weights of all blocks and heads for all queries: models with more are not looked at in all blocks at once. It is the
/// number of 21 blocks of three heads with 256 tokens.
const AT_ONCE: usize = 1 << 22;

/// What is looked at.
#[derive(Default)]
pub(crate) struct Looking {
    stage: Stage<Inspector>,
    /// How often an image was run: whoever holds results of one compares.
    pub(crate) images: u64,
    /// How often rows of attention were worked out.
    pub(crate) maps: u64,
    /// The classes' probabilities, once they are known.
    pub(crate) probabilities: Option<Vec<f64>>,
    /// Milliseconds of the newest forward pass on the GPU.
    pub(crate) forward_ms: Option<f64>,
    /// Queries of the slots.
    pub(crate) queries: Vec<Query>,
    /// Rows of a block, [slots, heads + 1, tokens], for labels and tooltips.
    rows: Option<(usize, Vec<f32>)>,
    is_fresh: bool,
    image_is_stale: bool,
    rows_are_stale: bool,
    looked: Option<(Vec<Query>, usize)>,
    /// Blocks that still show an older look: that which is looked at comes first, so that it follows the pointer.
    behind: Vec<usize>,
}

impl Looking {
    /// Another model is on its way; nothing that is known of the last one counts any more.
    pub(crate) fn begin(&mut self, job: Job<Inspector>) {
        let (images, maps) = (self.images, self.maps);
        *self = Looking { stage: Stage::Coming(job), images, maps, image_is_stale: true, ..Looking::default() };
    }

    /// Another image.
    pub(crate) fn choose_image(&mut self) {
        self.image_is_stale = true;
        self.probabilities = None;
    }

    /// The weights have changed: the image is to be run again.
    pub(crate) fn change_weights(&mut self) {
        self.image_is_stale = true;
    }

    /// The model, once it is compiled.
    pub(crate) fn inspector(&self) -> Option<&Inspector> {
        if let Stage::Ready(inspector) = &self.stage { Some(inspector) } else { None }
    }

    /// The model is being compiled.
    pub(crate) fn is_coming(&self) -> bool {
        self.stage.is_coming()
    }

    /// Takes the compiled model when it has come.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.is_fresh = self.stage.settle()?;
        self.image_is_stale |= self.is_fresh;
        Ok(())
    }

    /// Whether [`Looking::update`] wants the image.
    pub(crate) fn wants_image(&self) -> bool {
        self.image_is_stale && self.inspector().is_some()
    }

    /// Runs what is stale (`image` is the normalised one, if it is wanted and there is one), works out the rows that
    /// `queries` chooses for a model (class token or not, slots), and takes what has come back. True if more is on its way.
    pub(crate) fn update(
        &mut self,
        image: Option<&[f32]>,
        queries: impl FnOnce(bool, usize) -> Vec<Query>,
        layer: usize,
    ) -> Result<bool> {
        let Some(inspector) = self.stage.ready() else { return Ok(false) };
        let sizes = inspector.sizes();
        if let Some(image) = image {
            // The time that is shown is that of the last run.
            for _ in 0..if self.is_fresh { WARM_UP } else { 1 } {
                inspector.run(image, 0)?;
            }
            (self.image_is_stale, self.rows_are_stale) = (false, true);
            self.images += 1;
        }
        self.queries = queries(sizes.prefix > 0, sizes.slots);
        let wanted = Some((self.queries.clone(), layer));
        let is_large = weights(inspector) > AT_ONCE;
        let is_moved = !self.image_is_stale && (self.rows_are_stale || self.looked != wanted);
        // Of a large model one look at a time is under way, so that a fast pointer queues nothing up.
        if is_moved && !(is_large && inspector.is_waiting()) {
            let mut layers: Vec<usize> = (0..sizes.layers).filter(|&other| other != layer).collect();
            self.behind = if is_large { std::mem::take(&mut layers) } else { Vec::new() };
            layers.insert(0, layer);
            inspector.look(&self.queries, &layers, Some(layer))?;
            (self.rows_are_stale, self.looked) = (false, wanted);
            self.maps += 1;
        } else if !is_moved && !inspector.is_waiting() && !self.behind.is_empty() {
            let next = self.behind.remove(0);
            inspector.look(&self.queries, &[next], None)?;
        }
        let news = inspector.news()?;
        self.probabilities = news.logits.map(|logits| softmax(&logits)).or(self.probabilities.take());
        self.forward_ms = news.forward_ms.or(self.forward_ms);
        self.rows = news.rows.or(self.rows.take());
        Ok(inspector.is_waiting() || !self.behind.is_empty())
    }

    /// Whether some blocks still show an older look.
    pub(crate) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Looks at all that is behind, at once.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        let behind = std::mem::take(&mut self.behind);
        if let (Some(inspector), false) = (self.stage.ready(), behind.is_empty()) {
            inspector.look(&self.queries, &behind, None)?;
        }
        Ok(())
    }

    /// A slot's row in a block, for labels: every token's weight. It may be a frame old.
    pub(crate) fn row(&self, layer: usize, head: Head, slot: usize) -> Option<&[f32]> {
        let inspector = self.inspector()?;
        let (of, values) = self.rows.as_ref()?;
        let block = inspector.block(layer)?;
        let (tokens, row) = (block.tokens(), block.row(head, slot)?);
        values.get(row * tokens..(row + 1) * tokens).filter(|_| *of == layer)
    }
}

/// How many weights the model's attention has in all.
fn weights(inspector: &Inspector) -> usize {
    inspector.blocks().iter().map(|block| block.queries() * block.tokens() * block.heads).sum()
}
