//! A model with its weights: opened from a file or shared with a run, recorded, compiled and uploaded in one place.

use std::path::Path;
use std::sync::Arc;

use lara_runtime::{Gpu, Mode, Parameters, Plan, Role, Tape, Tune};

use crate::compile::compile;
use crate::config::TrainConfig;
use crate::data::{ImageShape, Preprocess};
use crate::error::{Error, Result};
use crate::predictor::Predictor;
use crate::train::checkpoint::TrainedModel;
use crate::weights::{TensorFile, names_and_shapes};

/// Where weights come from.
#[derive(Clone)]
pub enum Weights {
    /// A file's.
    Stored(Arc<TensorFile>),
    /// Those of a run in progress: the same buffers, so that every step shows.
    Live(Arc<Parameters>),
}

/// A model that can be run. What it takes is [`crate::Family::inputs`] of `config.model`, what it gives its network's
/// [`crate::Outputs`], both by name.
///
/// ```no_run
/// # async fn example(gpu: &lara_runtime::Gpu, tune: &lara_runtime::Tune) -> Result<(), lara_models::Error> {
/// use lara_models::Model;
/// use lara_runtime::Mode;
///
/// let model = Model::open("runs/digits")?;
/// let (plan, (inputs, outputs)) = model
///     .compile(gpu, tune, &model.config, Mode::Eval, |tape| {
///         let inputs = model.config.model.declare(tape, 1);
///         let outputs = model.config.build()?.forward(tape, &inputs);
///         outputs.iter().for_each(|(_, tensor)| tape.rec.pin(tensor));
///         Ok::<_, lara_models::Error>((inputs, outputs))
///     })
///     .await?;
/// plan.run().write(inputs[0], &vec![0.0; inputs[0].len()]).steps().submit()?;
/// for (name, tensor) in outputs.iter() {
///     println!("{name} {}: {:?}", tensor.shape(), plan.read(tensor).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Model {
    /// File or run.
    pub name: String,
    /// Configuration it was trained with.
    pub config: TrainConfig,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Its weights.
    pub weights: Weights,
}

impl Model {
    /// The model in a run's folder (its best checkpoint, else its newest), a checkpoint or a safetensors file.
    ///
    /// # Errors
    /// What cannot be read, and a file that carries no configuration.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_trained(&path.display().to_string(), TrainedModel::open(path)?)
    }

    /// The model in the bytes of a safetensors file; `name` stands for it in messages.
    ///
    /// # Errors
    /// Bytes that are no safetensors file, or one that carries no configuration.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_trained(name, TrainedModel::from_bytes(name, bytes)?)
    }

    /// A model whose file was read already.
    ///
    /// # Errors
    /// One that carries no configuration, or one that makes no sense.
    pub fn from_trained(name: &str, trained: TrainedModel) -> Result<Self> {
        let Some(config) = trained.config.clone() else {
            return Err(Error::BadInput(format!(
                "{name} carries no configuration in its metadata; open a checkpoint that lara has written"
            )));
        };
        Self::with_config(name, trained, config)
    }

    /// A model whose file was read already, under a configuration that is not the file's own: another attention mechanism, or
    /// that of a file from elsewhere.
    ///
    /// # Errors
    /// A configuration that makes no sense.
    pub fn with_config(name: &str, mut trained: TrainedModel, config: TrainConfig) -> Result<Self> {
        config.validate()?;
        trained.fit(&config)?;
        let numbered = || (0..config.model.num_classes()).map(|class| class.to_string()).collect();
        let classes = if trained.classes.is_empty() { numbered() } else { trained.classes };
        Ok(Self { name: name.to_owned(), config, classes, weights: Weights::Stored(Arc::new(trained.weights)) })
    }

    /// The model of a run in progress: `parameters` are buffers that every step changes.
    pub fn live(config: TrainConfig, classes: Vec<String>, parameters: Parameters) -> Self {
        Self { name: "the run in progress".into(), config, classes, weights: Weights::Live(Arc::new(parameters)) }
    }

    /// The shape of the images it takes.
    pub fn image_shape(&self) -> ImageShape {
        self.config.model.image_shape()
    }

    /// How pictures are made what it takes.
    ///
    /// # Errors
    /// Means or deviations that do not fit its images.
    pub fn preprocess(&self) -> Result<Preprocess> {
        self.config.preprocess()
    }

    /// Pixels in 0..1 as the model wants them: normalised.
    ///
    /// # Errors
    /// Pixels of another size.
    pub fn normalise(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        self.config.preprocess()?.normalise(pixels)
    }

    /// The file that its weights come from.
    pub fn file(&self) -> Option<&TensorFile> {
        match &self.weights {
            Weights::Stored(file) => Some(file),
            Weights::Live(_) => None,
        }
    }

    /// Parameters to record a model over: new ones for a file's weights, the run's own for live ones.
    pub fn parameters(&self, gpu: &Gpu) -> Parameters {
        match &self.weights {
            Weights::Stored(_) => Parameters::new(gpu),
            Weights::Live(parameters) => (**parameters).clone(),
        }
    }

    /// Records with `record` on a tape over these weights, compiles and uploads them. `config` is what `record` goes by: the
    /// model's own, or one with another attention.
    ///
    /// # Errors
    /// What `record` fails with, a model that does not fit the adapter, or weights that do not fit the configuration.
    pub async fn compile<R, E: From<Error>>(
        &self,
        gpu: &Gpu,
        tune: &Tune,
        config: &TrainConfig,
        mode: Mode,
        record: impl FnOnce(&mut Tape<'_>) -> Result<R, E>,
    ) -> Result<(Plan, R), E> {
        let mut parameters = self.parameters(gpu);
        let compiled = compile(gpu, tune, &mut parameters, mode, &[Role::Weight], record).await?;
        self.upload(gpu, config, &parameters)?;
        Ok(compiled)
    }

    /// The model ready to classify batches of `batch` images.
    ///
    /// # Errors
    /// As [`Model::compile`].
    pub async fn predictor(&self, gpu: &Gpu, tune: &Tune, batch: usize) -> Result<Predictor> {
        let mut parameters = self.parameters(gpu);
        let predictor = Predictor::new(gpu, tune, &self.config, &mut parameters, batch, false).await?;
        self.upload(gpu, &self.config, &parameters)?;
        Ok(predictor)
    }

    /// Uploads a file's weights into parameters that were recorded and allocated for `config`. Under another attention than
    /// the model's own, weights that it has no use for are expected and not worth a warning.
    fn upload(&self, gpu: &Gpu, config: &TrainConfig, parameters: &Parameters) -> Result<()> {
        let Weights::Stored(file) = &self.weights else { return Ok(()) };
        let wanted = names_and_shapes(parameters);
        let weights = match config.attention == self.config.attention {
            true => file.get_all(&wanted)?,
            false => wanted.iter().map(|(name, shape)| file.get(name, shape)).collect::<Result<_>>()?,
        };
        for (index, values) in weights.iter().enumerate() {
            parameters.write(gpu, Role::Weight, index, values)?;
        }
        Ok(())
    }
}
