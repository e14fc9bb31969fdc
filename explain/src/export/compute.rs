//! Which rows of a model's attention are wanted, and where they come from.

use std::str::FromStr;

use lara_models::train::TrainConfig;

use crate::error::{Error, Result};
use crate::inspector::Inspector;
use crate::map::{Kind, Map, Query};
use crate::matrices::Matrices;
use crate::relevance::Relevance;
use crate::sizes::{Head, Sizes};

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

impl Heads {
    /// The heads of a block that has `count`.
    fn of(&self, count: usize) -> Result<Vec<Head>> {
        match self {
            Heads::Mean => Ok(vec![Head::Mean]),
            Heads::Each(pick) => Ok(pick.of(count, "head")?.into_iter().map(Head::One).collect()),
        }
    }
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

/// The selected rows of the inspector's last run, block by block, head by head, query by query, worked out as many
/// queries at a time as the model has slots. The maps carry each block's mechanism, or `name` if one is given.
///
/// # Errors
/// If the model has not what is selected, or the device was lost.
pub async fn rows(inspector: &mut Inspector, name: Option<&str>, selection: &Selection) -> Result<Vec<Map>> {
    let sizes = inspector.sizes();
    let layers = selection.layers.of(sizes.layers, "layer")?;
    let queries = resolve(&selection.queries, sizes)?;
    let mut blocks = Vec::with_capacity(layers.len());
    for &layer in &layers {
        let heads = selection.heads.of(inspector.block(layer).map_or(0, |block| block.heads))?;
        let own = mechanism(inspector.config(), layer)?;
        blocks.push((layer, heads, name.map_or(own, str::to_owned)));
    }
    let mut placed = Vec::new();
    for (chunk, some) in queries.chunks(sizes.slots).enumerate() {
        inspector.look(some, &layers, None)?;
        for (block, (layer, heads, mechanism)) in blocks.iter().enumerate() {
            let maps = inspector.read_maps(mechanism, &[*layer], heads).await?;
            // They come query by query, head by head.
            let place = |at: usize| (block, at % heads.len(), chunk * sizes.slots + at / heads.len());
            placed.extend(maps.into_iter().enumerate().map(|(at, map)| (place(at), map)));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, map)| map).collect())
}

/// What a rollout is worked out with.
pub enum Rolling<'a> {
    /// In linear memory, for any number of tokens: heads averaged, nothing discarded.
    Linear(&'a mut Inspector),
    /// By matrices, with this share of each block's lowest entries discarded, 0 to 1.
    Matrices(&'a mut Matrices, f32),
}

/// The rollout rows of the queries in the last run of what works them out, query by query. `config` is the model's; the
/// maps carry its mechanisms, or `name` if one is given.
///
/// # Errors
/// If the model has not what is asked for, or the device was lost.
pub async fn rollouts(
    mut rolling: Rolling<'_>,
    config: &TrainConfig,
    name: Option<&str>,
    queries: &[Asked],
) -> Result<Vec<Map>> {
    let sizes = match &rolling {
        Rolling::Linear(inspector) => inspector.sizes(),
        Rolling::Matrices(matrices, _) => matrices.sizes(),
    };
    let mechanism = name.map_or_else(|| mechanisms(config), |name| Ok(name.to_owned()))?;
    let mut maps = Vec::with_capacity(queries.len());
    for some in resolve(queries, sizes)?.chunks(sizes.slots) {
        let values = match &mut rolling {
            Rolling::Linear(inspector) => {
                inspector.roll_out(some)?;
                inspector.read_rolled().await?
            }
            Rolling::Matrices(matrices, ratio) => {
                matrices.look(some, *ratio)?;
                matrices.read().await?
            }
        };
        maps.extend(some.iter().zip(values.chunks(sizes.tokens())).map(|(&query, values)| Map {
            mechanism: mechanism.clone(),
            kind: Kind::Rollout,
            layer: None,
            head: None,
            query,
            query_grid: sizes.query_grid,
            grid: sizes.grid,
            prefix: sizes.prefix,
            values: values.to_vec(),
        }));
    }
    Ok(maps)
}

/// The gradient-weighted attention of the last run, block by block, head by head: the mean over all queries of attention
/// times its gradient, what speaks against the class left out. `config` is the model's; the maps carry each block's
/// mechanism, or `name` if one is given.
///
/// # Errors
/// If the model has not what is selected, or the device was lost.
pub async fn gradients(
    relevance: &Relevance,
    config: &TrainConfig,
    name: Option<&str>,
    layers: &Pick,
    heads: &Heads,
) -> Result<Vec<Map>> {
    let layers = layers.of(relevance.sizes().layers, "layer")?;
    let blocks: Vec<Sizes> = layers.iter().filter_map(|&layer| relevance.block(layer)).collect();
    let wanted: Vec<Vec<Head>> = blocks.iter().map(|block| heads.of(block.heads)).collect::<Result<_>>()?;
    let read = relevance.read().await?;
    let mut maps = Vec::new();
    for ((&layer, sizes), heads) in layers.iter().zip(blocks).zip(wanted) {
        let mechanism = mechanism(config, layer).map(|own| name.map_or(own, str::to_owned))?;
        let rows: Vec<&[f32]> = read.get(layer).map_or(&[][..], |rows| rows).chunks(sizes.tokens()).collect();
        for head in heads {
            let (at, head) = match head {
                Head::Mean => (sizes.heads, None),
                Head::One(head) => (head, Some(head)),
            };
            let mean = |sum: &f32| sum / sizes.queries() as f32;
            maps.extend(rows.get(at).map(|row| Map {
                mechanism: mechanism.clone(),
                kind: Kind::Gradient,
                layer: Some(layer),
                head,
                query: Query::Mean,
                query_grid: sizes.query_grid,
                grid: sizes.grid,
                prefix: sizes.prefix,
                values: row.iter().map(mean).collect(),
            }));
        }
    }
    Ok(maps)
}

/// The queries that were asked for, all of which the model has.
fn resolve(asked: &[Asked], sizes: Sizes) -> Result<Vec<Query>> {
    asked.iter().map(|asked| asked.query(sizes.query_grid, sizes.prefix)).collect()
}

/// The name of a block's mechanism.
fn mechanism(config: &TrainConfig, layer: usize) -> Result<String> {
    Ok(config.attention_of(layer)?.mechanism.name().to_owned())
}

/// The names of all blocks' mechanisms, each once: `softmax+lara`.
fn mechanisms(config: &TrainConfig) -> Result<String> {
    let mut names: Vec<String> = Vec::new();
    for layer in 0..config.model.depth() {
        let name = mechanism(config, layer)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names.join("+"))
}
