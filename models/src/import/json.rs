//! Values of a config.json, with sentences for those that are not there or of another kind.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An object of a file, with where it stands for messages.
pub(super) struct Object<'a> {
    path: &'a Path,
    /// `pretrained_cfg.` for an object within the file's.
    within: String,
    values: &'a Map<String, Value>,
}

/// An object without members.
static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Object<'a> {
    /// All of a file.
    pub(super) fn of(path: &'a Path, value: &'a Value) -> Result<Self> {
        let values = value.as_object().ok_or_else(|| Error::input(path, "is no JSON object"))?;
        Ok(Object { path, within: String::new(), values })
    }

    /// An object in this one; empty if it is not there.
    pub(super) fn object(&self, key: &str) -> Result<Object<'a>> {
        let values = self.typed(key, "an object", Value::as_object)?.unwrap_or(&NOTHING);
        Ok(Object { path: self.path, within: format!("{}{key}.", self.within), values })
    }

    /// All of it.
    pub(super) fn value(&self) -> Value {
        Value::Object(self.values.clone())
    }

    /// The file that it is in.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// A value that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Members that are not null, in the order of their names.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.values.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    /// Where a value stands: `pretrained_cfg.mean in folder/config.json`.
    pub(super) fn place(&self, key: &str) -> String {
        format!("{}{key} in {}", self.within, self.path.display())
    }

    pub(super) fn problem(&self, key: &str, problem: &str) -> Error {
        Error::input(self.path, format!("has {}{key} {problem}", self.within))
    }

    fn typed<T>(&self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.problem(key, &format!("= {value}, where {kind} is expected"));
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    /// The whole number under a key that must be there.
    pub(super) fn needed(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| Error::input(self.path, format!("does not say {}{key}", self.within)))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(super) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.typed(key, "a list of whole numbers", |value| value.as_array()?.iter().map(count).collect())
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        self.typed(key, "a list of texts", |value| value.as_array()?.iter().map(text).collect())
    }
}
