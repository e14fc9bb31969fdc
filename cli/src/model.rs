//! A trained model from disk, as the commands want it.

use std::path::Path;

use lara_models::Model;
use lara_models::train::TrainConfig;
use lara_models::train::checkpoint::TrainedModel;

use crate::fail::{Failure, Outcome};

/// The model in a run's folder, a checkpoint, a safetensors file or one of another library, with `sets` laid over its
/// configuration (another attention mechanism that needs no new weights, say).
pub(crate) fn open(path: &Path, preset: Option<&str>, sets: &[String]) -> Outcome<Model> {
    let (trained, config) = trained(path, preset, sets)?;
    Ok(Model::with_config(&path.display().to_string(), trained, config)?)
}

/// The same as it came from disk, and the configuration for it.
pub(crate) fn trained(path: &Path, preset: Option<&str>, sets: &[String]) -> Outcome<(TrainedModel, TrainConfig)> {
    let trained = TrainedModel::open(path)?;
    let mut config = match (preset, &trained.config) {
        (Some(preset), _) => TrainConfig::load(preset, &[] as &[&str])?,
        (None, Some(config)) => config.clone(),
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
