//! One attention map on the CPU, with everything that is needed to label it: what exports and tests work with.

use serde::{Deserialize, Serialize};

/// Whose attention a map shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// The class token's.
    Class,
    /// The mean over all queries.
    Mean,
    /// That of a patch, counted row by row from the top left.
    Patch(usize),
}

impl Query {
    /// `class token`, `mean query` or `patch (row, column)`.
    pub fn label(self, grid: [usize; 2]) -> String {
        match self {
            Query::Class => "class token".into(),
            Query::Mean => "mean query".into(),
            Query::Patch(at) => format!("patch ({}, {})", at / grid[1].max(1), at % grid[1].max(1)),
        }
    }
}

/// A row of an attention matrix, implied or explicit, or a rollout: one number a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// `softmax`, `lara` …, with settings where several of one kind are shown (`lara, 16 landmarks`).
    pub mechanism: String,
    /// What was computed: `attention`, `rollout`, `gradient-weighted`, `difference`, `deviation`.
    pub kind: String,
    /// Block, from 0; absent for a rollout.
    pub layer: Option<usize>,
    /// Head, from 0; absent for a fusion of all.
    pub head: Option<usize>,
    /// Whose attention.
    pub query: Query,
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Tokens before the first patch (1 with a class token).
    pub prefix: usize,
    /// [prefix + rows x columns], row by row.
    pub values: Vec<f32>,
}

impl Map {
    /// The values of the patches, without the tokens in front.
    pub fn patches(&self) -> &[f32] {
        &self.values[self.prefix.min(self.values.len())..]
    }

    /// Smallest and largest value of the patches; (0, 0) where there is none.
    pub fn range(&self) -> (f32, f32) {
        let fold =
            self.patches().iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        if fold.0 > fold.1 { (0.0, 0.0) } else { fold }
    }

    /// `softmax · layer 2 · head 1 · patch (3, 4)`
    pub fn title(&self) -> String {
        let mut parts = vec![self.mechanism.clone()];
        if self.kind != "attention" {
            parts.push(self.kind.clone());
        }
        parts.extend(self.layer.map(|l| format!("layer {l}")));
        parts.push(self.head.map_or_else(|| "all heads".into(), |h| format!("head {h}")));
        parts.push(self.query.label(self.grid));
        parts.join(" · ")
    }
}
