//! Attention settings of single blocks, laid over those of all.

use lara_runtime::attention::{AttentionConfig, MechanismKind};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::TrainConfig;
use crate::error::{Error, Result, nearest};

/// What differs in one block: `"softmax"`, or `{ mechanism = "lara", num_landmarks = 16 }` with any key of
/// `[attention]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LayerAttention {
    /// Another mechanism.
    Mechanism(MechanismKind),
    /// Other settings.
    Settings(Table),
}

impl LayerAttention {
    /// These settings over those of `[attention]`.
    fn over(&self, base: &AttentionConfig, layer: usize) -> Result<AttentionConfig> {
        let settings = match self {
            LayerAttention::Mechanism(mechanism) => {
                return Ok(AttentionConfig { mechanism: *mechanism, ..base.clone() });
            }
            LayerAttention::Settings(settings) => settings,
        };
        let written =
            |error: toml::ser::Error| Error::Config(format!("[attention] cannot be written as TOML: {error}"));
        let mut table = Table::try_from(base).map_err(written)?;
        for (key, value) in settings {
            if !table.contains_key(key) {
                let hint =
                    nearest(key, table.keys().map(String::as_str)).map(|near| format!("; did you mean `{near}`?"));
                let hint = hint.unwrap_or_default();
                return Err(Error::Config(format!("unknown key `{key}` in model.attention_layers[{layer}]{hint}")));
            }
            table.insert(key.clone(), value.clone());
        }
        Value::Table(table)
            .try_into()
            .map_err(|error| Error::Config(format!("model.attention_layers[{layer}]: {}", error.message().trim())))
    }
}

impl TrainConfig {
    /// The attention of block `layer`: `[attention]`, with what `model.attention_layers` says of this block.
    ///
    /// # Errors
    /// If the list names a key that attention does not have, or gives one a value of the wrong type.
    pub fn attention_of(&self, layer: usize) -> Result<AttentionConfig> {
        match self.model.attention_layers.get(layer) {
            Some(settings) => settings.over(&self.attention, layer),
            None => Ok(self.attention.clone()),
        }
    }
}
