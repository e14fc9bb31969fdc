//! Which rows of a model's attention are wanted, and where they come from.

use std::str::FromStr;

use lara_models::Predictor;
use lara_models::train::TrainConfig;

use crate::error::{Error, Result};
use crate::{Map, Query};

/// Blocks or heads, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Every one.
    All,
    /// These, in this order.
    These(Vec<usize>),
}

impl Pick {
    /// The numbers, if all are below `count`; `what` is their name in the error.
    fn of(&self, count: usize, what: &str) -> Result<Vec<usize>> {
        match self {
            Pick::All => Ok((0..count).collect()),
            Pick::These(numbers) => match numbers.iter().find(|&&number| number >= count) {
                Some(number) => {
                    Err(Error::BadInput(format!("there is no {what} {number}; the model has {count}, counted from 0")))
                }
                None => Ok(numbers.clone()),
            },
        }
    }
}

impl FromStr for Pick {
    type Err = Error;

    /// `all` or numbers with commas: `0,2`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Pick::All);
        }
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        numbers
            .map(Pick::These)
            .map_err(|_| Error::BadInput(format!("`{text}` is neither `all` nor numbers as in 0,2")))
    }
}

/// The heads of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heads {
    /// Their mean.
    Mean,
    /// Some or all, each on its own.
    Each(Pick),
}

impl FromStr for Heads {
    type Err = Error;

    /// `mean`, `all` or numbers with commas.
    fn from_str(text: &str) -> Result<Self> {
        if text == "mean" {
            return Ok(Heads::Mean);
        }
        text.parse()
            .map(Heads::Each)
            .map_err(|_| Error::BadInput(format!("`{text}` is neither `mean` nor `all` nor numbers as in 0,2")))
    }
}

/// Whose attention is wanted, before the grid is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The mean over all queries, the class token's included.
    Mean,
    /// The class token's.
    Class,
    /// That of the patch in the middle (right and below of it if there are two).
    Center,
    /// That of the patch in this row and column, from 0.
    At(usize, usize),
}

impl Asked {
    fn query(self, [rows, columns]: [usize; 2], prefix: usize) -> Result<Query> {
        match self {
            Asked::Mean => Ok(Query::Mean),
            Asked::Class if prefix > 0 => Ok(Query::Class),
            Asked::Class => {
                let what = "the model has no class token to look from; ask for mean, center or a patch as ROW,COLUMN";
                Err(Error::BadInput(what.into()))
            }
            Asked::Center => Ok(Query::Patch((rows / 2) * columns + columns / 2)),
            Asked::At(row, column) if row < rows && column < columns => Ok(Query::Patch(row * columns + column)),
            Asked::At(row, column) => Err(Error::BadInput(format!(
                "there is no patch in row {row}, column {column}: the grid has {rows} x {columns}, counted from 0"
            ))),
        }
    }
}

impl FromStr for Asked {
    type Err = Error;

    /// `mean`, `class`, `center` or `ROW,COLUMN`.
    fn from_str(text: &str) -> Result<Self> {
        let patch = text
            .split_once(',')
            .and_then(|(row, column)| Some(Asked::At(row.trim().parse().ok()?, column.trim().parse().ok()?)));
        match (text, patch) {
            ("mean", _) => Ok(Asked::Mean),
            ("class", _) => Ok(Asked::Class),
            ("center", _) => Ok(Asked::Center),
            (_, Some(patch)) => Ok(patch),
            _ => Err(Error::BadInput(format!("`{text}` is not mean, class, center or a patch as ROW,COLUMN"))),
        }
    }
}

/// The rows that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Of these blocks.
    pub layers: Pick,
    /// Of these heads.
    pub heads: Heads,
    /// Of these queries.
    pub queries: Vec<Asked>,
}

/// The attention of every block that a predictor with maps computed: [1, heads, tokens, tokens], flat, and those sizes.
pub type Blocks = [(Vec<usize>, Vec<f32>)];

/// The selected rows of the predictor's last run, block by block, head by head, query by query. `predictor` is one for
/// single images that computes maps. The maps carry each block's mechanism, or `name` if one is given.
///
/// # Errors
/// If the model has not what is selected, or the device was lost.
pub async fn rows(
    predictor: &Predictor,
    config: &TrainConfig,
    name: Option<&str>,
    selection: &Selection,
) -> Result<Vec<Map>> {
    let side = config.model.grid_size();
    let mechanisms: Vec<String> = (0..config.model.depth)
        .map(|layer| match name {
            Some(name) => Ok(name.to_owned()),
            None => Ok(config.attention_of(layer)?.mechanism.name().to_owned()),
        })
        .collect::<Result<_>>()?;
    let seen = predictor.maps().await?;
    pick(&seen, &mechanisms, [side, side], usize::from(config.model.class_token), selection)
}

/// The selected rows of explicit attention matrices. `mechanisms` has a name for every block, `prefix` tokens stand
/// before those of the grid.
///
/// # Errors
/// If there is not what is selected, or the sizes do not go together.
pub fn pick(
    blocks: &Blocks,
    mechanisms: &[String],
    grid: [usize; 2],
    prefix: usize,
    selection: &Selection,
) -> Result<Vec<Map>> {
    let tokens = prefix + grid[0] * grid[1];
    let mut maps = Vec::new();
    for layer in selection.layers.of(blocks.len().min(mechanisms.len()), "layer")? {
        let (sizes, values) = &blocks[layer];
        let (&[1, count, rows, columns], true) = (&sizes[..], sizes.iter().product::<usize>() == values.len()) else {
            return Err(mismatch(layer, sizes, tokens));
        };
        if rows != tokens || columns != tokens || tokens == 0 || count == 0 {
            return Err(mismatch(layer, sizes, tokens));
        }
        let heads = match &selection.heads {
            Heads::Mean => vec![None],
            Heads::Each(pick) => pick.of(count, "head")?.into_iter().map(Some).collect(),
        };
        for head in heads {
            for asked in &selection.queries {
                let query = asked.query(grid, prefix)?;
                let of_head = |head: usize| &values[head * tokens * tokens..(head + 1) * tokens * tokens];
                let matrices = head.map_or_else(|| (0..count).map(of_head).collect(), |head| vec![of_head(head)]);
                let mechanism = mechanisms[layer].clone();
                let values = mean(&matrices, tokens, row(query, prefix));
                maps.push(Map {
                    mechanism,
                    kind: "attention".into(),
                    layer: Some(layer),
                    head,
                    query,
                    grid,
                    prefix,
                    values,
                });
            }
        }
    }
    Ok(maps)
}

/// The matrix's row of a query; none for the mean of all.
fn row(query: Query, prefix: usize) -> Option<usize> {
    match query {
        Query::Mean => None,
        Query::Class => Some(0),
        Query::Patch(at) => Some(prefix + at),
    }
}

/// The mean of a row, or of all rows, of some matrices [tokens, tokens].
fn mean(matrices: &[&[f32]], tokens: usize, row: Option<usize>) -> Vec<f32> {
    let rows = row.map_or(0..tokens, |row| row..row + 1);
    let count = (matrices.len() * rows.len()) as f64;
    let sum = |column: usize| -> f64 {
        let of = |matrix: &&[f32]| rows.clone().map(|row| f64::from(matrix[row * tokens + column])).sum::<f64>();
        matrices.iter().map(of).sum()
    };
    (0..tokens).map(|column| (sum(column) / count) as f32).collect()
}

fn mismatch(layer: usize, sizes: &[usize], tokens: usize) -> Error {
    Error::BadInput(format!(
        "the attention of layer {layer} has the sizes {sizes:?}, not [1, heads, {tokens}, {tokens}] for one image"
    ))
}
