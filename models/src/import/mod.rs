//! Checkpoints of other libraries, both ways: what their config.json says, and what they call tensors.

mod fit;
mod hkunlp;
mod huggingface;
mod json;
mod names;
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
use crate::imagenet;
use crate::registry::ModelConfig;
use crate::vit::VitConfig;
use crate::weights::{Stored, TensorFile};
pub(crate) use fit::fit;
use json::Object;
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

impl Library {
    /// How it brings position tables to other grids.
    pub fn resampling(self) -> Resampling {
        if self == Library::Hf { Resampling::Plain } else { Resampling::Antialiased }
    }
}

/// What a configuration of another library says.
struct Model {
    config: TrainConfig,
    /// Names of the classes; empty if it does not carry them.
    classes: Vec<String>,
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
}

/// A model of another library: its weights, the text of its config.json and, where there is one, of its
/// preprocessor_config.json. The paths stand for the texts in messages.
///
/// # Errors
/// A text that is no JSON; a model that is not known here, with the nearest name; settings that are not known or of the wrong
/// kind; tensors that do not go together.
pub fn import(file: &TensorFile, config: (&Path, &[u8]), preprocessor: Option<(&Path, &[u8])>) -> Result<Imported> {
    let value = parse(config)?;
    let json = Object::of(config.0, &value)?;
    let library = library(&json)?;
    let Model { mut config, mut classes } = match library {
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
    Ok(Imported { library, config, classes, weights })
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
        Library::Timm | Library::Lara => timm::import(file),
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
    let placed: Vec<f32> = token_values.iter().zip(place).map(|(token, place)| token + place).collect();
    let mut tensors = file.clone().into_tensors();
    tensors.insert("cls_token".to_owned(), Stored::of(token.to_vec(), &placed));
    tensors.insert("pos_embed".to_owned(), Stored::of(vec![1, patches, dim], places));
    Ok(file.with_tensors(tensors))
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
        Library::Hf => huggingface::names(vit).export(file),
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
