//! A trained model from disk: weights with their configuration, of this program or of another library.

use std::fs;
use std::path::Path;

use super::super::layout::{BEST, MODEL_FILE, PREFIX, latest};
use super::CONFIG;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::hub;
use crate::import::positions::Resampling;
use crate::import::{self, CONFIG_FILE, Imported, Library, PREPROCESSOR_FILE};
use crate::torch;
use crate::weights::TensorFile;

/// Weights to evaluate or predict with.
#[derive(Clone, Debug)]
pub struct TrainedModel {
    /// The weights.
    pub weights: TensorFile,
    /// The configuration, if the file carries one (those that [`super::super::Checkpoints`] wrote do).
    pub config: Option<TrainConfig>,
    /// Names of the classes; empty if the file does not carry them.
    pub classes: Vec<String>,
    /// Whose model it was.
    pub library: Library,
    /// How its position table is brought to images of another size.
    pub resampling: Resampling,
}

/// Where files of ours that were another library's say how their position table is resampled.
pub const RESAMPLING: &str = "position_resampling";

impl TrainedModel {
    /// Opens a safetensors file or one of PyTorch, a checkpoint's folder, a run's folder (its best checkpoint, else its newest), or a model of
    /// another library: a folder with its config.json, or `hf:ORG/NAME[@REVISION]` in the hub's local cache.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = &hub::locate(path.as_ref())?;
        let candidates = [Some(path.to_path_buf()), Some(path.join(BEST)), latest(path)];
        let file = if path.is_dir() {
            let inside = candidates.into_iter().flatten().map(|folder| folder.join(MODEL_FILE));
            inside.chain([path.join(hub::PICKLED)]).find(|file| file.is_file()).ok_or_else(|| {
                Error::input(path, format!("holds no model: there is no {MODEL_FILE}, no {BEST} and no {PREFIX}NNNNNN"))
            })?
        } else {
            path.to_path_buf()
        };
        let weights = torch::open(&file)?;
        let beside = file.parent().unwrap_or(Path::new(""));
        let foreign = Some(beside.join(CONFIG_FILE)).filter(|_| !weights.metadata().contains_key(CONFIG));
        match foreign.filter(|path| path.is_file()) {
            Some(path) => Self::from_library(&weights, &path, &beside.join(PREPROCESSOR_FILE)),
            None => Self::from_weights(weights),
        }
    }

    /// A model of another library, which keeps its configuration beside the weights.
    fn from_library(weights: &TensorFile, config: &Path, preprocessor: &Path) -> Result<Self> {
        let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
        let text = preprocessor.is_file().then(|| read(preprocessor)).transpose()?;
        let preprocessor = text.as_ref().map(|text| (preprocessor, &text[..]));
        let Imported { library, config, classes, weights, resampling } =
            import::import(weights, (config, &read(config)?), preprocessor)?;
        Ok(Self { weights, config: Some(config), classes, library, resampling })
    }

    /// Brings the weights to these settings, where only the size of images or their channels are others: a position table
    /// is resampled as the model's library does it.
    ///
    /// # Errors
    /// A tensor whose numbers cannot be read.
    pub fn fit(&mut self, config: &TrainConfig) -> Result<()> {
        if let Some(own) = &self.config {
            self.weights = import::fit(&self.weights, &own.model, &config.model, self.resampling)?;
        }
        Ok(())
    }

    /// The model in the bytes of a safetensors file; `name` stands for the file in messages.
    ///
    /// # Errors
    /// Bytes that are no safetensors file, or whose configuration does not parse.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let read = if torch::is_archive(&bytes) { torch::from_bytes } else { TensorFile::from_bytes };
        Self::from_weights(read(name, bytes)?)
    }

    fn from_weights(weights: TensorFile) -> Result<Self> {
        let weights = import::unwrapped(&weights)?;
        let config = weights.metadata().get(CONFIG);
        let config = config
            .map(|text| TrainConfig::from_toml(text, &format!("config in {}", weights.path().display())))
            .transpose()?;
        let classes = weights.metadata().get("classes").and_then(|text| serde_json::from_str(text).ok());
        let resampling =
            weights.metadata().get(RESAMPLING).map(String::as_str).map_or(Ok(Resampling::default()), |name| {
                let unknown =
                    || weights.problem(format!("says {RESAMPLING} = \"{name}\"; it must be antialiased or plain"));
                Resampling::named(name).ok_or_else(unknown)
            })?;
        Ok(Self { weights, config, classes: classes.unwrap_or_default(), library: Library::Lara, resampling })
    }
}
