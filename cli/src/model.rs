//! A trained model from disk, as the commands want it.

use std::path::Path;

use lara_models::Model;
use lara_models::data::{DataConfig, Split};
use lara_models::train::TrainConfig;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::TensorFile;
use lara_runtime::attention::{MechanismKind, ProposalGen};

use crate::fail::{Failure, Outcome};

/// What to lower where one image at a time is too much for the device.
pub(crate) const LOWER_NOTHING: &str =
    "what other programs hold of it, or choose an adapter with more (--adapter; `lara devices` lists them)";

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
    if let (None, Some(own)) = (preset, &trained.config)
        && lacks_landmarks(&trained.weights, own, &config)?
        && !sets.iter().any(|set| set.contains("proposal_gen"))
    {
        config.set("attention.proposal_gen=no-param-pool")?;
        let file = path.display();
        tracing::warn!("{file} has no landmark weights: LARA runs with attention.proposal_gen=no-param-pool");
    }
    config.validate()?;
    Ok((trained, config))
}

/// Whether LARA was asked for and needs landmark generators that a model was trained without.
fn lacks_landmarks(weights: &TensorFile, own: &TrainConfig, config: &TrainConfig) -> Outcome<bool> {
    let learned = |config: &TrainConfig| -> Outcome<bool> {
        let layers = (0..config.model.depth()).map(|layer| config.attention_of(layer));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let plain = [ProposalGen::NoParamPool, ProposalGen::NoParamPoolMixed];
        Ok(layers.iter().any(|at| at.mechanism == MechanismKind::Lara && !plain.contains(&at.proposal_gen)))
    };
    let has = weights.names().any(|name| name.contains("_landmarks."));
    Ok(!has && learned(config)? && !learned(own)?)
}

/// What a new run begins with: the model, its attention and its normalisation of a checkpoint over a preset, or all that the
/// checkpoint says, with `sets` on top. Where none of them says how many classes there are, the data do.
pub(crate) fn beginning(path: &Path, preset: Option<&str>, sets: &[String]) -> Outcome<(TrainedModel, TrainConfig)> {
    let mut trained = TrainedModel::open(path)?;
    let mut config =
        match (preset.map(|preset| TrainConfig::load(preset, &[] as &[&str])).transpose()?, &trained.config) {
            (Some(preset), Some(own)) => {
                let TrainConfig { model, attention, .. } = own.clone();
                let data = DataConfig { mean: own.data.mean.clone(), std: own.data.std.clone(), ..preset.data };
                let rates = serde_json::to_value(&preset.model)?;
                let mut taken = TrainConfig { model, attention, data, ..preset };
                // How much is dropped is of the training and not of the model.
                for key in ["drop_rate", "drop_path_rate"] {
                    if let Some(rate) = rates.get(key) {
                        taken.set(&format!("model.{key}={rate}"))?;
                    }
                }
                taken
            }
            (None, Some(own)) => own.clone(),
            (Some(preset), None) => preset,
            (None, None) => {
                let what = format!("{} carries no configuration; name one with --preset", path.display());
                return Err(Failure::input(what));
            }
        };
    sets.iter().try_for_each(|set| config.set(set))?;
    if !sets.iter().any(|set| set.contains("num_classes")) {
        let classes = config.data.open(config.model.image_shape(), Split::Train)?.classes().len();
        config.set(&format!("model.num_classes={classes}"))?;
    }
    config.validate()?;
    trained.fit(&config)?;
    Ok((trained, config))
}
