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

/// Rows of a position table that stand for no place: those of the tokens in front.
fn front(vit: &VitConfig) -> usize {
    vit.num_positions() - vit.num_patches()
}

/// The grid that a file's position table is for: the settings' own, or, where it has another number of rows, a square.
pub(super) fn grid_of(weights: &TensorFile, vit: &VitConfig) -> Option<[usize; 2]> {
    let &[1, rows, dim] = weights.shape("pos_embed")? else { return None };
    let places = rows.checked_sub(front(vit)).filter(|places| *places > 0 && dim == vit.embed_dim)?;
    let side = places.isqrt();
    if places == vit.num_patches() { Some(vit.grid_size()) } else { (side * side == places).then_some([side; 2]) }
}

fn positions(weights: &TensorFile, from: &VitConfig, to: &VitConfig, how: Resampling) -> Result<Option<Stored>> {
    let (new, dim) = (to.grid_size(), from.embed_dim);
    let Some(old) = grid_of(weights, from) else { return Ok(None) };
    if old == new || front(from) != front(to) || to.embed_dim != dim {
        return Ok(None);
    }
    let table = weights.get("pos_embed", &[1, front(from) + old[0] * old[1], dim])?;
    let (front, places) = table.split_at(front(from) * dim);
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
