//! A model to look at: configuration, class names, and weights from a file or from a run in progress.

use std::sync::Arc;

use lara_models::data::ImageShape;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::train::{TrainConfig, names_and_shapes};
use lara_runtime::{Gpu, Parameters, Role};

use crate::error::{Error, Result};

/// The checkpoint that comes with the program; explain/data/README.md says how it was trained.
static BUNDLED: &[u8] = include_bytes!("../data/digits.safetensors");

/// Where weights come from.
#[derive(Clone)]
pub enum Weights {
    /// A file's.
    Stored(Arc<TrainedModel>),
    /// Those of a run in progress: the same buffers, so that every step shows.
    Live(Arc<Parameters>),
}

/// The model of a run in progress.
#[derive(Clone, Debug)]
pub struct LiveModel {
    /// Its configuration.
    pub config: TrainConfig,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Its weights: buffers that every step changes.
    pub parameters: Parameters,
}

/// A model to look at.
#[derive(Clone)]
pub struct Subject {
    /// File or run.
    pub name: String,
    /// Configuration it was trained with.
    pub config: TrainConfig,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Its weights.
    pub weights: Weights,
}

impl Subject {
    /// The model that comes with the program: digits, LARA.
    ///
    /// # Errors
    /// Never for an unbroken build.
    pub fn bundled() -> Result<Self> {
        Self::from_bytes("the bundled digits model", BUNDLED.to_vec())
    }

    /// A model in the bytes of a safetensors file, with its configuration in the metadata.
    ///
    /// # Errors
    /// Bytes that are no safetensors file, or one that carries no configuration.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_trained(name, TrainedModel::from_bytes(name, bytes)?)
    }

    /// A model from a run's folder, a checkpoint or a safetensors file.
    ///
    /// # Errors
    /// As [`TrainedModel::open`], and a file that carries no configuration.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path) -> Result<Self> {
        Self::from_trained(&path.display().to_string(), TrainedModel::open(path)?)
    }

    /// A model whose file was read already.
    ///
    /// # Errors
    /// One that carries no configuration.
    pub fn from_trained(name: &str, mut trained: TrainedModel) -> Result<Self> {
        let Some(config) = trained.config.take() else {
            return Err(Error::BadInput(format!(
                "{name} carries no configuration in its metadata; open a checkpoint that lara has written"
            )));
        };
        config.validate()?;
        let numbered = || (0..config.model.num_classes()).map(|c| c.to_string()).collect();
        let classes = if trained.classes.is_empty() { numbered() } else { trained.classes.clone() };
        Ok(Subject { name: name.to_owned(), config, classes, weights: Weights::Stored(Arc::new(trained)) })
    }

    /// The model of a run in progress.
    pub fn live(model: LiveModel) -> Self {
        let weights = Weights::Live(Arc::new(model.parameters));
        Subject { name: "the run in progress".into(), config: model.config, classes: model.classes, weights }
    }

    /// The shape of the images it takes.
    pub fn image_shape(&self) -> ImageShape {
        self.config.model.image_shape()
    }

    /// How much of a picture is kept: as the images that were trained on, those of digits and MNIST fill their frames.
    pub fn crop_pct(&self) -> f64 {
        self.config.data.crop()
    }

    /// Pixels in 0..1 as the model wants them: normalised.
    ///
    /// # Errors
    /// Pixels of another size.
    pub fn normalise(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        Ok(self.config.image_reader()?.normalise(pixels)?)
    }

    /// Parameters to record a model over: new ones for a file's weights, the run's own for live ones.
    pub(crate) fn parameters(&self, gpu: &Gpu) -> Parameters {
        match &self.weights {
            Weights::Stored(_) => Parameters::new(gpu),
            Weights::Live(parameters) => (**parameters).clone(),
        }
    }

    /// Uploads a file's weights into parameters that were recorded and allocated for `config`. Under another attention
    /// than the file's own, weights that it has no use for are expected and not worth a warning.
    pub(crate) fn upload(&self, gpu: &Gpu, config: &TrainConfig, parameters: &Parameters) -> Result<()> {
        let Weights::Stored(trained) = &self.weights else { return Ok(()) };
        let wanted = names_and_shapes(parameters);
        let weights = match config.attention == self.config.attention {
            true => trained.weights.get_all(&wanted)?,
            false => wanted
                .iter()
                .map(|(name, shape)| trained.weights.get(name, shape))
                .collect::<lara_models::Result<_>>()?,
        };
        for (index, values) in weights.iter().enumerate() {
            parameters.write(gpu, Role::Weight, index, values);
        }
        Ok(())
    }
}
