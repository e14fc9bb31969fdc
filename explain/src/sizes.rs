//! Sizes of a model that is looked at, and which of its heads is meant.

use lara_models::LayerShape;
use lara_models::train::TrainConfig;

use crate::map::Query;

/// Most rows that are worked out at once: the hovered query and the pinned ones.
pub const SLOTS: usize = 8;

/// One head, or the mean over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Mean over the heads.
    #[default]
    Mean,
    /// One of them, from 0.
    One(usize),
}

/// Sizes of the model under inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Tokens in front of them: 1 with a class token.
    pub prefix: usize,
    /// Heads of a block.
    pub heads: usize,
    /// Blocks.
    pub layers: usize,
    /// Rows that can be worked out at once.
    pub slots: usize,
}

impl Sizes {
    /// All tokens.
    pub fn tokens(&self) -> usize {
        self.prefix + self.grid[0] * self.grid[1]
    }

    /// Of a model with this configuration.
    pub fn of(config: &TrainConfig) -> Self {
        let LayerShape { grid, prefix, heads, head_dim } = config.model.layer(0);
        Sizes { grid, prefix, heads, layers: config.model.depth(), slots: SLOTS.min(head_dim) }
    }

    /// The weights of the outputs whose mean row a query stands for; None for a query that is not there.
    pub fn selection(&self, query: Query) -> Option<Vec<f32>> {
        let mut row = vec![0.0; self.tokens()];
        match query {
            Query::Class if self.prefix > 0 => row[0] = 1.0,
            Query::Mean => row.fill(1.0 / self.tokens() as f32),
            Query::Patch(at) if at < self.grid[0] * self.grid[1] => row[self.prefix + at] = 1.0,
            _ => return None,
        }
        Some(row)
    }
}
