//! Maps as named tensors, in the format that the models' weights have, too.

use std::borrow::Cow;

use lara_models::weights::{Metadata, TensorView, write};
use serde_json::json;

use crate::error::{Error, Result};
use crate::export::{Sheet, labels};

/// One tensor `[tokens]` of f32 a map, named `MECHANISM.blocks.LAYER.headHEAD.QUERY`. The metadata have `title`, `image`,
/// `notes` (a JSON list of pairs) and `maps`: a JSON list with every map's name, title, mechanism, kind, layer, head,
/// query, grid and prefix.
///
/// # Errors
/// If the sheet's parts do not go together.
pub fn encode(sheet: &Sheet) -> Result<Vec<u8>> {
    sheet.check()?;
    let labels = labels(&sheet.maps);
    let shapes: Vec<[usize; 1]> = sheet.maps.iter().map(|map| [map.values.len()]).collect();
    let views = labels.iter().zip(&sheet.maps).zip(&shapes);
    let tensors: Vec<TensorView<'_>> = views
        .map(|((label, map), shape)| TensorView { name: Cow::Borrowed(&label.name), shape, data: &map.values })
        .collect();
    let metadata: Metadata = [
        ("format", "lara attention maps".into()),
        ("title", sheet.title.clone()),
        ("image", sheet.image_name.clone()),
        ("notes", json!(sheet.notes).to_string()),
        ("maps", json!(labels).to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let mut bytes = Vec::new();
    write(&mut bytes, &tensors, &metadata)
        .map_err(|error| Error::BadInput(format!("the maps cannot be written as safetensors: {error}")))?;
    Ok(bytes)
}
