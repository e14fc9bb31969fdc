//! A model's weights brought to other sizes of its images.

use super::positions::Resampling;
use crate::error::Result;
use crate::registry::ModelConfig;
use crate::vit::VitConfig;
use crate::weights::{Stored, TensorFile};

/// The weights of a model with the settings `from`, for the settings `to`: the position table on the new grid, and the patch
/// embedding of RGB summed for grey images. What else differs is left as it is, and told by whoever looks for it.
///
/// # Errors
/// A tensor whose numbers cannot be read.
pub(crate) fn fit(weights: &TensorFile, from: &ModelConfig, to: &ModelConfig, how: Resampling) -> Result<TensorFile> {
    let mut tensors = weights.clone().into_tensors();
    if let (ModelConfig::Vit(from), ModelConfig::Vit(to)) = (from, to)
        && let Some(table) = positions(weights, from, to, how)?
    {
        tensors.insert("pos_embed".to_owned(), table);
    }
    if let Some(embedding) = grey(weights, from, to)? {
        tensors.insert("patch_embed.proj.weight".to_owned(), embedding);
    }
    Ok(weights.with_tensors(tensors))
}

fn positions(weights: &TensorFile, from: &VitConfig, to: &VitConfig, how: Resampling) -> Result<Option<Stored>> {
    let (old, new, dim) = (from.grid_size(), to.grid_size(), from.embed_dim);
    let shape = [1, from.num_positions(), dim];
    let same = from.num_positions() - from.num_patches() == to.num_positions() - to.num_patches();
    if old == new || !same || to.embed_dim != dim || weights.shape("pos_embed") != Some(&shape[..]) {
        return Ok(None);
    }
    let table = weights.get("pos_embed", &shape)?;
    // Tokens in front stand for no place.
    let (front, places) = table.split_at((from.num_positions() - from.num_patches()) * dim);
    let values = [front, &how.apply(places, dim, old, new)].concat();
    Ok(Some(Stored::of(vec![1, to.num_positions(), dim], &values)))
}

fn grey(weights: &TensorFile, from: &ModelConfig, to: &ModelConfig) -> Result<Option<Stored>> {
    let channels = [from, to].map(|model| model.image_shape().channels);
    let &[dim, 3, rows, columns] = weights.shape("patch_embed.proj.weight").unwrap_or_default() else {
        return Ok(None);
    };
    if channels != [3, 1] {
        return Ok(None);
    }
    let colours = weights.get("patch_embed.proj.weight", &[dim, 3, rows, columns])?;
    let sum = |kernel: &[f32]| -> Vec<f32> {
        let (red, rest) = kernel.split_at(rows * columns);
        let (green, blue) = rest.split_at(rows * columns);
        red.iter().zip(green).zip(blue).map(|((r, g), b)| r + g + b).collect()
    };
    let values: Vec<f32> = colours.chunks(3 * rows * columns).flat_map(sum).collect();
    Ok(Some(Stored::of(vec![dim, 1, rows, columns], &values)))
}
