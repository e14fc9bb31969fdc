//! Checkpoints of other libraries, both ways: what their config.json says, and what they call tensors.

mod fit;
mod hkunlp;
mod huggingface;
mod json;
mod names;
mod pictures;
pub mod positions;
mod pyramids;
mod timm;

use std::path::Path;

use lara_runtime::attention::{AttentionConfig, MechanismKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::TrainConfig;
use crate::data::DatasetKind;
use crate::error::{Error, Result};
use crate::image_size::ImageSize;
use crate::imagenet;
use crate::registry::ModelConfig;
use crate::vit::VitConfig;
use crate::weights::{Stored, TensorFile};
pub(crate) use fit::fit;
use json::Object;
pub(crate) use names::unwrapped;
use positions::Resampling;

/// The file that stands beside a model's weights on the hub.
pub const CONFIG_FILE: &str = "config.json";

/// What says how pictures are brought to a model of Hugging Face.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// Whose names and settings a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Library {
    /// This program: timm's names, configuration in the file itself.
    Lara,
    /// PyTorch Image Models.
    Timm,
    /// transformers of Hugging Face.
    Hf,
    /// The paper's authors: HKUNLP/efficient-attention.
    Hkunlp,
}

/// What a configuration of another library says.
struct Model {
    config: TrainConfig,
    /// Names of the classes; empty if it does not carry them.
    classes: Vec<String>,
    /// The size of the images that it is shown, where its position table is for another.
    seen: Option<ImageSize>,
    /// How the library brings its position table to other grids.
    resampling: Resampling,
}

/// A model of another library.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Which.
    pub library: Library,
    /// Its settings in our words.
    pub config: TrainConfig,
    /// Names of the classes; empty if the file does not carry them.
    pub classes: Vec<String>,
    /// Its weights under our names.
    pub weights: TensorFile,
    /// How the library brings its position table to other grids.
    pub resampling: Resampling,
}

/// A model of another library: its weights, the text of its config.json and, where there is one, of its
/// preprocessor_config.json. The paths stand for the texts in messages.
///
/// # Errors
/// A text that is no JSON; a model that is not known here, with the nearest name; settings that are not known or of the wrong
/// kind; tensors that do not go together.
pub fn import(file: &TensorFile, config: (&Path, &[u8]), preprocessor: Option<(&Path, &[u8])>) -> Result<Imported> {
    let file = &unwrapped(file)?;
    let value = parse(config)?;
    let json = Object::of(config.0, &value)?;
    let library = library(&json)?;
    let Model { mut config, mut classes, seen, resampling } = match library {
        Library::Hf => match preprocessor {
            Some(text) => huggingface::model(&json, Some(&Object::of(text.0, &parse(text)?)?), file)?,
            None => huggingface::model(&json, None, file)?,
        },
        Library::Hkunlp => hkunlp::model(&json, file)?,
        Library::Timm | Library::Lara => timm::model(&json, file)?,
    };
    config.data.dataset = DatasetKind::Folder;
    if library != Library::Hkunlp {
        // The models of other libraries attend exactly.
        config.attention.mechanism = MechanismKind::Softmax;
    }
    if classes.is_empty() && library != Library::Hkunlp && config.model.num_classes() == imagenet::CLASSES {
        classes = imagenet::classes();
    }
    let weights = renamed(file, library, &config)?;
    if let ModelConfig::Vit(vit) = &mut config.model {
        vit.image_size = seen.unwrap_or(vit.image_size);
        let has = |name: &str| weights.shape(name).is_some();
        vit.head_bias = !has("head.weight") || has("head.bias") || has("head_dist.bias");
    }
    Ok(Imported { library, config, classes, weights, resampling })
}

fn parse((path, text): (&Path, &[u8])) -> Result<Value> {
    serde_json::from_slice(text).map_err(|error| Error::input(path, format!("is no valid JSON: {error}")))
}

/// Refuses sizes that no model can have before anything is worked out of them.
fn check(config: &TrainConfig, json: &Object<'_>) -> Result<()> {
    // What its attention is has not been read yet.
    let exact = AttentionConfig { mechanism: MechanismKind::Softmax, ..config.attention.clone() };
    config.model.check(&exact).map_err(|error| Error::Config(format!("{}: {error}", json.path().display())))
}

/// Refuses a number of classes, under a key, that is not the one of the classifier.
fn same_classes(
    json: &Object<'_>,
    key: &str,
    said: Option<usize>,
    rows: Option<usize>,
    file: &TensorFile,
) -> Result<()> {
    match (said, rows) {
        (Some(said), Some(rows)) if said != rows => Err(json.problem(
            key,
            &format!(
                "for {said} classes, but the classifier in {} has {rows}; one of the two is another model's",
                file.path().display()
            ),
        )),
        _ => Ok(()),
    }
}

/// Whose configuration it is.
fn library(json: &Object<'_>) -> Result<Library> {
    let marks = [("model_type", Library::Hf), ("architecture", Library::Timm), ("attention", Library::Hkunlp)];
    let found = marks.into_iter().find(|(key, _)| json.has(key)).map(|(_, library)| library);
    found.ok_or_else(|| {
        json.problem(
            "",
            "none of \"architecture\" (timm), \"model_type\" (transformers) and \"attention\" (HKUNLP), so it is not known \
             whose model it is",
        )
    })
}

/// A file of another library under our names.
fn renamed(file: &TensorFile, library: Library, config: &TrainConfig) -> Result<TensorFile> {
    let ModelConfig::Vit(vit) = &config.model else { return pyramids::import(file, config) };
    let file = match library {
        Library::Hf => huggingface::names(vit).import(file)?,
        Library::Hkunlp => hkunlp::names(config).import(file)?,
        Library::Timm | Library::Lara => timm::import(file)?,
    };
    let mut tensors = file.clone().into_tensors();
    // The authors keep rows and columns of the position table apart; very old files of timm have patches as rows.
    let (dim, patch) = (vit.embed_dim, vit.patch_size);
    let wanted = [
        ("pos_embed", vec![1, vit.num_positions(), dim]),
        ("patch_embed.proj.weight", vec![dim, vit.in_chans, patch, patch]),
    ];
    for (name, shape) in wanted {
        let count = shape.iter().product::<usize>();
        if let Some(stored) = tensors.remove(name) {
            let fits = stored.shape().iter().product::<usize>() == count;
            tensors.insert(name.to_owned(), if fits { stored.reshaped(shape) } else { stored });
        }
    }
    let renamed = file.with_tensors(tensors);
    if vit.class_token && vit.no_embed_class { place_in_class_token(renamed, vit) } else { Ok(renamed) }
}

/// A model whose position table has a place for the class token though it has none for the registers behind it (DINOv2): what
/// the place adds to the class token becomes part of it, and the table is of patches alone, as timm has it.
fn place_in_class_token(file: TensorFile, vit: &VitConfig) -> Result<TensorFile> {
    let (dim, patches) = (vit.embed_dim, vit.num_patches());
    let (token, table) = ([1, 1, dim], [1, 1 + patches, dim]);
    if file.shape("pos_embed") != Some(&table[..]) || file.shape("cls_token") != Some(&token[..]) {
        return Ok(file);
    }
    let (places, token_values) = (file.get("pos_embed", &table)?, file.get("cls_token", &token)?);
    let (place, places) = places.split_at(dim);
    if place.iter().all(|add| *add == 0.0) {
        // Not a bit of the token changes.
        return without_place(&file, patches);
    }
    let placed: Vec<f32> = token_values.iter().zip(place).map(|(token, place)| token + place).collect();
    let mut tensors = file.clone().into_tensors();
    tensors.insert("cls_token".to_owned(), Stored::of(token.to_vec(), &placed));
    tensors.insert("pos_embed".to_owned(), Stored::of(vec![1, patches, dim], places));
    Ok(file.with_tensors(tensors))
}

/// The file with the first place of its position table left out: that of the class token, which adds nothing.
fn without_place(file: &TensorFile, patches: usize) -> Result<TensorFile> {
    let mut tensors = file.clone().into_tensors();
    if let Some(table) = tensors.get_mut("pos_embed") {
        let dim = table.shape().last().copied().unwrap_or(0);
        *table = table.clone().reshaped(vec![1 + patches, dim]).rows(1..1 + patches).reshaped(vec![1, patches, dim]);
    }
    Ok(file.with_tensors(tensors))
}

/// The settings under which the model's position table is as it is stored: those given, but for the size of images where the
/// table is for another.
pub fn as_stored(config: &TrainConfig, weights: &TensorFile) -> TrainConfig {
    let mut stored = config.clone();
    if let ModelConfig::Vit(vit) = &mut stored.model
        && let Some([rows, columns]) = fit::grid_of(weights, vit)
    {
        vit.image_size = ImageSize { height: rows * vit.patch_size, width: columns * vit.patch_size };
    }
    stored
}

/// A file of ours under another library's names, as it would have written it.
///
/// # Errors
/// A tensor that cannot be cut as the library has it.
pub fn export(file: &TensorFile, library: Library, config: &TrainConfig) -> Result<TensorFile> {
    let ModelConfig::Vit(vit) = &config.model else {
        return if library == Library::Hkunlp { pyramids::export(file, config) } else { Ok(file.clone()) };
    };
    match library {
        Library::Hf => huggingface::export(file, vit),
        Library::Hkunlp => {
            let theirs = hkunlp::names(config).export(file)?;
            let mut tensors = theirs.clone().into_tensors();
            let [rows, columns] = vit.grid_size();
            let is_grid = |stored: &Stored| stored.shape() == [1, rows * columns, vit.embed_dim];
            if let Some(table) = tensors.get("pos_embed").filter(|table| is_grid(table)).cloned() {
                tensors.insert("pos_embed".to_owned(), table.reshaped(vec![1, rows, columns, vit.embed_dim]));
            }
            Ok(theirs.with_tensors(tensors))
        }
        Library::Timm | Library::Lara => Ok(file.clone()),
    }
}

/// The config.json that a library would have beside a model with these settings; none for our own files, which carry theirs.
///
/// # Errors
/// A setting that the library's models do not have.
pub fn config_json(library: Library, config: &TrainConfig, classes: &[String]) -> Result<Option<Value>> {
    match library {
        Library::Lara => Ok(None),
        Library::Timm => timm::write(config, classes).map(Some),
        Library::Hf => huggingface::write(config, classes).map(Some),
        Library::Hkunlp => hkunlp::write(config).map(Some),
    }
}

/// The preprocessor_config.json that a library would have beside a model with these settings; none where its config.json says
/// how pictures are brought to it.
///
/// # Errors
/// A way to fit pictures that the library does not have.
pub fn preprocessor_json(library: Library, config: &TrainConfig) -> Result<Option<Value>> {
    match library {
        Library::Hf => pictures::preprocessor_config(&config.preprocess()?).map(Some),
        Library::Lara | Library::Timm | Library::Hkunlp => Ok(None),
    }
}

/// The width of a MLP's hidden layer as libraries work it out of a ratio that a file says: rounded down. A ratio of ours,
/// which is rounded to the nearest, that gives the same.
fn ratio_of_theirs(dim: usize, ratio: f64) -> f64 {
    let exact = dim as f64 * ratio;
    if exact.is_finite() && exact.floor() != exact.round() { exact.floor() / dim as f64 } else { ratio }
}

/// The ratio that says a hidden width to libraries which round down.
fn ratio_for_theirs(dim: usize, ratio: f64, hidden: usize) -> f64 {
    let is_it = |ratio: f64| (dim as f64 * ratio) as usize == hidden;
    let exact = hidden as f64 / dim.max(1) as f64;
    [ratio, exact].into_iter().find(|ratio| is_it(*ratio)).unwrap_or(exact.next_up())
}

/// Refuses attention that the models of a library do not have.
fn only_softmax(config: &TrainConfig, library: &str) -> Result<()> {
    for layer in 0..config.model.depth() {
        let mechanism = config.attention_of(layer)?.mechanism;
        if mechanism != MechanismKind::Softmax {
            return Err(has_no(library, &format!("attention.mechanism = \"{}\"", mechanism.name())));
        }
    }
    Ok(())
}

fn has_no(library: &str, what: &str) -> Error {
    Error::Config(format!("{library} has no models with {what}, so this one cannot be written for it"))
}
