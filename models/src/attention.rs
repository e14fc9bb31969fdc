//! Attention settings of single blocks, laid over those of all.

use lara_runtime::attention::{AttentionConfig, MechanismKind};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::check::ensure;
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
    /// The attention of block `layer`: `base`, with what `layers` (empty, or one for each block) says of this block.
    ///
    /// # Errors
    /// If the list names a key that attention does not have, or gives one a value of the wrong type.
    pub fn resolve(layers: &[Self], base: &AttentionConfig, layer: usize) -> Result<AttentionConfig> {
        match layers.get(layer) {
            Some(settings) => settings.over(base, layer),
            None => Ok(base.clone()),
        }
    }

    /// Checks the attention of `depth` blocks of `places` tokens each (those of no class token).
    pub(crate) fn check(layers: &[Self], base: &AttentionConfig, depth: usize, places: usize) -> Result<()> {
        let given = layers.len();
        ensure(given == 0 || given == depth, || {
            format!("model.attention_layers has {given} entries for model.depth = {depth} blocks; give one for each")
        })?;
        // Without a list one block speaks for all.
        (0..given.max(1)).try_for_each(|entry| Self::check_entry(layers, base, entry, places))
    }

    /// Checks the attention that an entry (of those that there are) asks for, of blocks of `places` tokens.
    pub(crate) fn check_entry(layers: &[Self], base: &AttentionConfig, entry: usize, places: usize) -> Result<()> {
        let settings = Self::resolve(layers, base, entry)?;
        settings.check().map_err(|error| match layers.len() {
            0 => Error::Config(format!("attention.{error}")),
            _ => Error::Config(format!("model.attention_layers[{entry}]: {error}")),
        })?;
        let landmarks = settings.num_landmarks;
        ensure(settings.mechanism != MechanismKind::Lara || (1..=places).contains(&landmarks), || {
            format!("attention.num_landmarks is {landmarks}; with {places} patches it must be between 1 and {places}")
        })
    }

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
