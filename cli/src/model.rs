//! A trained model from disk to device, as `eval` and `predict` want it.

use std::path::Path;

use lara_explain::Subject;
use lara_models::Predictor;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::train::{TrainConfig, names_and_shapes};
use lara_runtime::{Gpu, Parameters, Role, Tune};

use crate::fail::{Failure, Outcome};

/// A model on the device.
pub(crate) struct Model {
    pub(crate) config: TrainConfig,
    pub(crate) classes: Vec<String>,
    pub(crate) predictor: Predictor,
    pub(crate) parameters: Parameters,
}

/// Loads weights and configuration from a run's folder, a checkpoint or a safetensors file, with `sets` laid over the
/// configuration (another attention mechanism that needs no new weights, say).
pub(crate) fn load(gpu: &Gpu, path: &Path, preset: Option<&str>, sets: &[String], batch: usize) -> Outcome<Model> {
    let (trained, config) = open(path, preset, sets)?;
    let mut parameters = Parameters::new(gpu);
    let tune = Tune::measured(gpu);
    let predictor = pollster::block_on(Predictor::new(gpu, &tune, &config, &mut parameters, batch, false))?;
    let weights = trained.weights.get_all(&names_and_shapes(&parameters))?;
    for (index, values) in weights.iter().enumerate() {
        parameters.write(gpu, Role::Weight, index, values);
    }
    let classes = if trained.classes.is_empty() {
        (0..config.model.num_classes()).map(|c| c.to_string()).collect()
    } else {
        trained.classes
    };
    Ok(Model { config, classes, predictor, parameters })
}

/// A model to look at, with `sets` laid over its configuration.
pub(crate) fn subject(path: &Path, preset: Option<&str>, sets: &[String]) -> Outcome<Subject> {
    let (mut trained, config) = open(path, preset, sets)?;
    trained.config = Some(config);
    Ok(Subject::from_trained(&path.display().to_string(), trained)?)
}

/// Weights and configuration from disk, with `sets` laid over the configuration.
pub(crate) fn open(path: &Path, preset: Option<&str>, sets: &[String]) -> Outcome<(TrainedModel, TrainConfig)> {
    let mut trained = TrainedModel::open(path)?;
    let mut config = match (preset, trained.config.take()) {
        (Some(preset), _) => TrainConfig::load(preset, &[] as &[&str])?,
        (None, Some(config)) => config,
        (None, None) => {
            let what = format!("{} carries no configuration; name one with --preset", path.display());
            return Err(Failure::input(what));
        }
    };
    for assignment in sets {
        config.set(assignment)?;
    }
    config.validate()?;
    Ok((trained, config))
}
