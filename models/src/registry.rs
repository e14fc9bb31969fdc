//! The models there are. One more is its file and its line at the end of this one.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use crate::error::{Error, Result, nearest};
use crate::family::Family;
use crate::zoo;

/// The key that says which model the others belong to.
pub(crate) const NAME: &str = "name";

macro_rules! models {
    ($first:literal => $first_variant:ident($first_config:ty) $(, $name:literal => $variant:ident($config:ty))* $(,)?) => {
        /// `[model]` of a configuration: which model, and its settings. What every model answers is [`Family`]'s.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ModelConfig {
            #[doc = concat!("`", $first, "`")]
            $first_variant($first_config),
            $(#[doc = concat!("`", $name, "`")] $variant($config),)*
        }

        impl ModelConfig {
            /// Names of all models.
            pub const NAMES: &'static [&'static str] = &[$first $(, $name)*];

            /// The model's name.
            pub fn name(&self) -> &'static str {
                match self {
                    Self::$first_variant(_) => $first,
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// A model with its default settings, or an architecture by its name (`deit_tiny_patch16_224`, see
            /// [`crate::zoo`]).
            ///
            /// # Errors
            /// If there is none of this name.
            pub fn named(name: &str) -> Result<Self> {
                match name {
                    $first => Ok(Self::$first_variant(Default::default())),
                    $($name => Ok(Self::$variant(Default::default())),)*
                    _ => architecture(name).ok_or_else(|| unknown(name, Self::NAMES)),
                }
            }

            fn table(&self) -> std::result::Result<Table, toml::ser::Error> {
                match self {
                    Self::$first_variant(config) => Table::try_from(config),
                    $(Self::$variant(config) => Table::try_from(config),)*
                }
            }

            fn parse(name: &str, settings: Table) -> std::result::Result<Self, String> {
                let said = |error: toml::de::Error| error.message().to_owned();
                match name {
                    $first => Value::Table(settings).try_into().map(Self::$first_variant).map_err(said),
                    $($name => Value::Table(settings).try_into().map(Self::$variant).map_err(said),)*
                    _ => Err(unknown(name, Self::NAMES).to_string()),
                }
            }
        }

        impl Default for ModelConfig {
            fn default() -> Self {
                Self::$first_variant(Default::default())
            }
        }

        impl Deref for ModelConfig {
            type Target = dyn Family;

            fn deref(&self) -> &(dyn Family + 'static) {
                match self {
                    Self::$first_variant(config) => config,
                    $(Self::$variant(config) => config,)*
                }
            }
        }

        impl DerefMut for ModelConfig {
            fn deref_mut(&mut self) -> &mut (dyn Family + 'static) {
                match self {
                    Self::$first_variant(config) => config,
                    $(Self::$variant(config) => config,)*
                }
            }
        }
    };
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut table = self.table().map_err(serde::ser::Error::custom)?;
        table.insert(NAME.to_owned(), self.name().into());
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    /// Settings without a name are the first model's: those of files from before there were others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut table = Table::deserialize(deserializer)?;
        let name = match table.remove(NAME) {
            Some(Value::String(name)) => name,
            Some(other) => return Err(serde::de::Error::custom(format!("the model's name is {other}, not a text"))),
            None => Self::NAMES[0].to_owned(),
        };
        if let Some(architecture) = architecture(&name) {
            let mut whole = architecture.table().map_err(serde::de::Error::custom)?;
            whole.extend(table);
            return Self::parse(architecture.name(), whole).map_err(serde::de::Error::custom);
        }
        Self::parse(&name, table).map_err(serde::de::Error::custom)
    }
}

/// An architecture by its name, with the settings that it stands for.
fn architecture(name: &str) -> Option<ModelConfig> {
    zoo::vit(name).map(ModelConfig::Vit).or_else(|| zoo::pvt(name).map(ModelConfig::Pvt))
}

fn unknown(name: &str, names: &[&str]) -> Error {
    let architectures = zoo::names();
    let all = names.iter().copied().chain(architectures.iter().map(String::as_str));
    let hint = nearest(name, all).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    Error::Config(format!(
        "there is no model \"{name}\", but {}, and architectures such as deit_tiny_patch16_224{hint}",
        names.join(", ")
    ))
}

models! {
    "vit" => Vit(crate::vit::VitConfig),
    "pvt" => Pvt(crate::pvt::PvtConfig),
}
