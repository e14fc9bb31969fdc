//! One attention map on the CPU, with everything that is needed to label it: what exports and tests work with.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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

/// What a map shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Rows of a block's implied attention matrix.
    #[default]
    Attention,
    /// Attention multiplied through all blocks.
    Rollout,
    /// A block's attention times its gradient for a class, over all queries.
    Gradient,
}

impl Kind {
    /// Name in titles and files: `attention`, `rollout`, `gradient-weighted`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Attention => "attention",
            Kind::Rollout => "rollout",
            Kind::Gradient => "gradient-weighted",
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    /// `attention`, `rollout` or `gradient`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "attention" => Ok(Kind::Attention),
            "rollout" => Ok(Kind::Rollout),
            "gradient" => Ok(Kind::Gradient),
            _ => Err(Error::BadInput(format!(
                "`{text}` is not a kind of map; there are attention, rollout and gradient"
            ))),
        }
    }
}

/// A row of an attention matrix, implied or explicit, or a rollout: one number a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// `softmax`, `lara` …, with settings where several of one kind are shown (`lara, 16 landmarks`).
    pub mechanism: String,
    /// What was computed.
    pub kind: Kind,
    /// Block, from 0; absent for a rollout.
    pub layer: Option<usize>,
    /// Head, from 0; absent for a fusion of all.
    pub head: Option<usize>,
    /// Whose attention.
    pub query: Query,
    /// Rows and columns of the places that queries stand for; for most models those of the map.
    pub query_grid: [usize; 2],
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

    /// What every key would get if all got the same, where the values are weights of keys: a gradient's are not.
    pub fn uniform(&self) -> Option<f32> {
        (self.kind != Kind::Gradient && !self.values.is_empty()).then(|| 1.0 / self.values.len() as f32)
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
        if self.kind != Kind::Attention {
            parts.push(self.kind.name().to_owned());
        }
        parts.extend(self.layer.map(|l| format!("layer {l}")));
        parts.push(self.head.map_or_else(|| "all heads".into(), |h| format!("head {h}")));
        parts.push(self.query.label(self.query_grid));
        parts.join(" · ")
    }
}
