//! Where a configuration comes from: a preset or a TOML file, then `--set KEY=VALUE` on top.
//!
//! Every value is laid on alone, over a configuration that is whole, so an error knows which key and which line is at
//! fault.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use lara_runtime::attention::AttentionConfig;

use super::TrainConfig;
use crate::error::{Error, Result, nearest};
use crate::registry::{ModelConfig, NAME};

/// The presets: name and TOML text.
pub const PRESETS: [(&str, &str); 8] = [
    ("digits", include_str!("../../presets/digits.toml")),
    ("mnist", include_str!("../../presets/mnist.toml")),
    ("emoji", include_str!("../../presets/emoji.toml")),
    ("deit_tiny_p16", include_str!("../../presets/deit_tiny_p16.toml")),
    ("deit_tiny_p8", include_str!("../../presets/deit_tiny_p8.toml")),
    ("deit_small_p16", include_str!("../../presets/deit_small_p16.toml")),
    ("deit_small_p8", include_str!("../../presets/deit_small_p8.toml")),
    ("pvt_v2_b3", include_str!("../../presets/pvt_v2_b3.toml")),
];

impl TrainConfig {
    /// The configuration of a preset or of a TOML file, with `sets` (each `KEY=VALUE`) laid over it in order,
    /// validated.
    pub fn load(preset_or_file: &str, sets: &[impl AsRef<str>]) -> Result<Self> {
        let mut config = match PRESETS.iter().find(|(name, _)| *name == preset_or_file) {
            Some((name, text)) => Self::from_toml(text, &format!("preset {name}"))?,
            None => Self::from_file(preset_or_file)?,
        };
        for assignment in sets {
            config.set(assignment.as_ref())?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Parses TOML over the defaults. `origin` names the text in errors ("run.toml"). Values are not yet checked
    /// against each other.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        let broken = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let message = error.message().trim().replace('\n', ", ");
            Error::Config(format!("{origin}, line {line}, is not valid TOML: {message}"))
        };
        let spans = DeTable::parse(text).map_err(broken)?;
        let values: Table = toml::from_str(text).map_err(broken)?;
        let mut config = Self::default();
        for leaf in leaves(spans.get_ref(), text, origin)? {
            let within = values.get(&leaf.section).and_then(|section| section.get(&leaf.key));
            // The short forms attention = "lara" and attention = [..] have no section of their own.
            let Some(value) = within.or_else(|| values.get("attention").filter(|_| leaf.is_short)) else {
                continue;
            };
            let place = format!("{origin}, line {}", leaf.line);
            config = config.with(&leaf.section, &leaf.key, value.clone(), &place)?;
        }
        Ok(config)
    }

    /// Lays one `KEY=VALUE` over the configuration. The key is a path (`train.lr`), or the last part of one where only
    /// one section has such a key (`lr`). The value is TOML; a text needs no quotes.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let place = format!("--set {assignment}");
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(Error::Config(format!(
                "{place} has no value; write --set KEY=VALUE, such as --set train.lr=1e-3"
            )));
        };
        let (path, text) = (path.trim(), text.trim());
        if path == "attention" {
            self.model.clear_attention_layers();
        }
        let (section, key) = match path.split_once('.') {
            None if path == "attention" => attention_key(text.starts_with('[')),
            Some((section, key)) => (section.to_string(), key.to_string()),
            None => (section_of(&self.table()?, path, &place)?, path.to_string()),
        };
        let literal = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        let plain = Value::String(text.to_string());
        let first = self.with(&section, &key, literal.unwrap_or_else(|| plain.clone()), &place);
        // A folder may be named 2024: what is no valid number here may be a valid text.
        *self = first.or_else(|error| self.with(&section, &key, plain, &place).map_err(|_| error))?;
        Ok(())
    }

    /// Attention settings alone: `sets`, each `KEY=VALUE` or `attention.KEY=VALUE`, laid over `base` in order and checked
    /// together.
    ///
    /// # Errors
    /// A key that attention does not have (with the nearest one), a value that it does not take.
    pub fn attention_from(base: &AttentionConfig, sets: &[impl AsRef<str>]) -> Result<AttentionConfig> {
        let mut config = Self { attention: base.clone(), ..Self::default() };
        let table = config.table()?;
        for assignment in sets.iter().map(AsRef::as_ref) {
            let place = format!("--set {assignment}");
            let path = assignment.split_once('=').map_or(assignment, |(path, _)| path).trim();
            let key = path.strip_prefix("attention.").unwrap_or(path);
            let all = keys(&table);
            let here = || all.iter().filter(|(section, _)| *section == "attention").map(|(_, key)| *key);
            if !here().any(|known| known == released_alias(key)) {
                let hint = match nearest(key, here()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", here().collect::<Vec<_>>().join(", ")),
                };
                return Err(Error::Config(format!("attention has no setting `{key}` ({place}); {hint}")));
            }
            let rest = assignment.trim_start();
            config.set(&format!("attention.{}", rest.strip_prefix("attention.").unwrap_or(rest)))?;
        }
        config.attention.check().map_err(|error| Error::Config(error.to_string()))?;
        Ok(config.attention)
    }

    /// The whole configuration as TOML; [`from_toml`](Self::from_toml) gives back an equal one.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|error| Error::Config(format!("the configuration cannot be written as TOML: {error}")))
    }

    fn from_file(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if !path.exists() && path.extension().is_none() {
            let presets = PRESETS.map(|(name, _)| name);
            let hint = nearest(name, presets).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            return Err(Error::Config(format!(
                "there is no preset and no file `{name}`; presets are {}{hint}",
                presets.join(", ")
            )));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_toml(&text, name)
    }

    fn table(&self) -> Result<Table> {
        Table::try_from(self)
            .map_err(|error| Error::Config(format!("the configuration cannot be written as TOML: {error}")))
    }

    /// This configuration with one value replaced. Another model begins with its own defaults.
    pub(crate) fn with(&self, section: &str, key: &str, value: Value, place: &str) -> Result<Self> {
        if let ("model", NAME, Value::String(name)) = (section, key, &value) {
            let named = |error| Error::Config(format!("`model.{NAME}` ({place}): {error}"));
            let model =
                if name == self.model.name() { self.model.clone() } else { ModelConfig::named(name).map_err(named)? };
            return Ok(Self { model, ..self.clone() });
        }
        let key = if section == "attention" { released_alias(key) } else { key };
        let mut table = self.table()?;
        let Some(Value::Table(inner)) = table.get_mut(section) else {
            return Err(unknown_section(&table, section, place));
        };
        let present = inner.insert(key.to_string(), value.clone());
        match table.clone().try_into::<Self>() {
            Ok(config) => Ok(config),
            Err(error) => match present {
                Some(present) => Err(bad_value(section, key, &value, &present, error.message(), place)),
                None => {
                    if let Some(Value::Table(inner)) = table.get_mut(section) {
                        inner.remove(key);
                    }
                    Err(unknown_key(&table, section, key, place))
                }
            },
        }
    }
}

/// The name used here for a setting that the authors' code calls otherwise. Beside its own name in one table an alias
/// would count as given twice.
fn released_alias(key: &str) -> &str {
    match key {
        "approx_attn_dim" => "features",
        "proj_method" => "kernel",
        other => other,
    }
}

/// One `key = value` of a file.
struct Leaf {
    section: String,
    key: String,
    line: usize,
    /// `attention = ..` at the top.
    is_short: bool,
}

/// What `attention = "lara"` and `attention = ["softmax", ..]` stand for.
fn attention_key(is_list: bool) -> (String, String) {
    let (section, key) = if is_list { ("model", "attention_layers") } else { ("attention", "mechanism") };
    (section.to_owned(), key.to_owned())
}

/// All keys of the file in the order of its lines.
fn leaves(document: &DeTable<'_>, text: &str, origin: &str) -> Result<Vec<Leaf>> {
    let template = TrainConfig::default().table()?;
    let mut leaves = Vec::new();
    for (section, value) in document {
        let line = line_of(text, section.span().start);
        let place = format!("{origin}, line {line}");
        let name = section.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(keys) if template.contains_key(name) => leaves.extend(keys.keys().map(|key| Leaf {
                section: name.to_string(),
                key: key.get_ref().to_string(),
                line: line_of(text, key.span().start),
                is_short: false,
            })),
            DeValue::String(_) | DeValue::Array(_) if name == "attention" => {
                let (section, key) = attention_key(matches!(value.get_ref(), DeValue::Array(_)));
                leaves.push(Leaf { section, key, line, is_short: true });
            }
            DeValue::Table(_) => return Err(unknown_section(&template, name, &place)),
            _ if template.contains_key(name) => {
                return Err(Error::Config(format!(
                    "`{name}` ({place}) is a section; write [{name}] and its keys below"
                )));
            }
            _ => {
                let owner = section_of(&template, name, &place)?;
                return Err(Error::Config(format!(
                    "`{name}` ({place}) stands outside its section; it belongs below [{owner}]"
                )));
            }
        }
    }
    // Which model there is decides what its other keys mean.
    leaves.sort_by_key(|leaf| (leaf.section != "model" || leaf.key != NAME, leaf.line));
    Ok(leaves)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// (section, key) of everything there is.
fn keys(table: &Table) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for (section, value) in table {
        if let Value::Table(inner) = value {
            all.extend(inner.keys().map(|key| (section.as_str(), key.as_str())));
        }
    }
    all
}

/// The one section that has `key`.
fn section_of(table: &Table, key: &str, place: &str) -> Result<String> {
    let all = keys(table);
    let owners: Vec<&str> = all.iter().filter(|(_, name)| *name == key).map(|(section, _)| *section).collect();
    match owners[..] {
        [owner] => Ok(owner.to_string()),
        [] => {
            let near = nearest(key, all.iter().map(|(_, name)| *name));
            let near = near.and_then(|near| all.iter().find(|(_, name)| *name == near));
            let hint = near.map(|(section, name)| format!("; did you mean `{section}.{name}`?"));
            Err(Error::Config(format!("unknown key `{key}` ({place}){}", hint.unwrap_or_default())))
        }
        _ => {
            let paths: Vec<String> = owners.iter().map(|section| format!("`{section}.{key}`")).collect();
            Err(Error::Config(format!("`{key}` ({place}) could be {}; write the whole path", paths.join(" or "))))
        }
    }
}

fn unknown_section(table: &Table, section: &str, place: &str) -> Error {
    let sections: Vec<&str> = table.keys().map(String::as_str).collect();
    let hint = match nearest(section, sections.iter().copied()) {
        Some(near) => format!("did you mean [{near}]?"),
        None => format!("sections are {}", sections.join(", ")),
    };
    Error::Config(format!("unknown section [{section}] ({place}); {hint}"))
}

fn unknown_key(table: &Table, section: &str, key: &str, place: &str) -> Error {
    let all = keys(table);
    let here = || all.iter().filter(|(owner, _)| *owner == section).map(|(_, name)| *name);
    let elsewhere = all.iter().find(|(_, name)| *name == key).map(|(owner, name)| format!("{owner}.{name}"));
    let near = elsewhere.or_else(|| nearest(key, here()).map(|near| format!("{section}.{near}")));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("keys of [{section}] are {}", here().collect::<Vec<_>>().join(", ")),
    };
    Error::Config(format!("unknown key `{section}.{key}` ({place}); {hint}"))
}

/// `present` is the value that was there, of the right kind; `message` is serde's.
fn bad_value(section: &str, key: &str, value: &Value, present: &Value, message: &str, place: &str) -> Error {
    let shown = value.to_string();
    // serde lists a text's choices in backticks: unknown variant `x`, expected one of `a`, `b`.
    if let (Value::String(given), Some((_, choices))) = (value, message.split_once("expected"))
        && message.starts_with("unknown variant")
    {
        let choices: Vec<&str> = choices.split('`').skip(1).step_by(2).collect();
        let hint = nearest(given, choices.iter().copied()).map(|near| format!("; did you mean \"{near}\"?"));
        return Error::Config(format!(
            "`{section}.{key}` ({place}) is {shown}, but must be one of {}{}",
            choices.join(", "),
            hint.unwrap_or_default()
        ));
    }
    let wanted = match present {
        Value::String(_) => "a text".to_string(),
        Value::Integer(_) => "a whole number of 0 or more".to_string(),
        Value::Float(_) => "a number".to_string(),
        Value::Boolean(_) => "true or false".to_string(),
        Value::Array(items) if key == "betas" => format!("a list of {} numbers", items.len()),
        Value::Array(_) => "a list of numbers".to_string(),
        _ => message.trim().to_string(),
    };
    Error::Config(format!("`{section}.{key}` ({place}) is {shown}, but must be {wanted}"))
}
