//! Reading a configuration: defaults, then a file, then `key=value` settings; unknown keys are errors that name the
//! nearest.

use super::Config;
use crate::toml_file::{TomlError, TomlFile};
use crate::value::ValueError;
use bigmac_schedule::names;
use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read, or that is not TOML.
    #[error("configuration: {source}{}", advice(source))]
    #[allow(missing_docs)]
    Toml {
        #[from]
        source: TomlError,
    },
    /// A key that does not exist, or a value of another type; `place` is the file or the flag.
    #[error("{place}: {message}")]
    #[allow(missing_docs)]
    Key { place: String, message: String },
    /// A setting that is not `key=value`.
    #[error("--set {0}: write it as key=value, such as --set train.lr=0.001")]
    Setting(String),
    /// A value that does not fit.
    #[error(transparent)]
    Value(#[from] ValueError),
}

fn advice(error: &TomlError) -> &'static str {
    match error {
        TomlError::Read { .. } => "; give a TOML file, such as configs/shapes.toml, or none for the default",
        TomlError::Content { .. } => "",
    }
}

/// The configuration of `file` (none: the default) with `settings` of the form `a.b=c` over it, checked.
pub fn read(file: Option<&Path>, settings: &[String]) -> Result<Config, ConfigError> {
    let mut config = table(&Config::default());
    if let Some(path) = file {
        overlay(&mut config, TomlFile::read(path)?.parse()?, "", &path.display().to_string())?;
    }
    apply(config, settings, file.map_or("configuration".into(), |p| p.display().to_string()))
}

/// `config` with `settings` of the form `a.b=c` over it, checked.
pub fn change(config: &Config, settings: &[String]) -> Result<Config, ConfigError> {
    apply(table(config), settings, "configuration".into())
}

/// A configuration as it was stored by serde, checked like one that a user writes.
pub fn restore(stored: &serde_json::Value) -> Result<Config, ConfigError> {
    let wrong = |message: String| ConfigError::Key { place: "configuration".into(), message };
    let stored = Value::try_from(stored).map_err(|e| wrong(e.to_string()))?;
    let Value::Table(stored) = stored else { return Err(wrong("expected a table of keys".into())) };
    let mut config = table(&Config::default());
    overlay(&mut config, stored, "", "configuration")?;
    apply(config, &[], "configuration".into())
}

fn apply(mut config: Table, settings: &[String], place: String) -> Result<Config, ConfigError> {
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| ConfigError::Setting(setting.clone()))?;
        overlay(&mut config, nested(key.trim(), scalar(value.trim())), "", &format!("--set {setting}"))?;
    }
    let config: Config = Value::Table(config)
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Key { place, message: e.to_string() })?;
    config.check()?;
    Ok(config)
}

/// The configuration as TOML, every key written out.
pub fn write(config: &Config) -> String {
    toml::to_string_pretty(&table(config)).unwrap_or_default()
}

fn table(config: &Config) -> Table {
    // A Config is made of tables, strings, numbers and flags, all of which TOML has.
    Table::try_from(config).unwrap_or_default()
}

/// A value as `--set` gives it: TOML where it parses as such, else a string.
fn scalar(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// `a.b.c` and a value as tables within tables.
fn nested(key: &str, value: Value) -> Table {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Value::Table(nested(rest, value))),
        None => (key, value),
    };
    Table::from_iter([(first.to_owned(), rest)])
}

/// Puts `over` over `base`, which has every key there is.
fn overlay(base: &mut Table, over: Table, prefix: &str, place: &str) -> Result<(), ConfigError> {
    for (key, value) in over {
        let path = join(prefix, &key);
        let wrong = |message| ConfigError::Key { place: place.into(), message };
        let Some(slot) = base.get_mut(&key) else {
            let nearest = nearest(base, prefix, &key);
            let hint = names::hint(nearest.as_deref());
            return Err(wrong(format!("'{path}' is not a valid key{hint}")));
        };
        match (slot, value) {
            (Value::Table(inner), Value::Table(value)) => overlay(inner, value, &path, place)?,
            (Value::Table(_), value) => {
                let given = value.type_str();
                return Err(wrong(format!("'{path}' is a table of keys, but {given} was given")));
            }
            (slot @ Value::Float(_), Value::Integer(i)) => *slot = Value::Float(i as f64),
            (slot, value) if slot.type_str() == value.type_str() => {
                // A configuration with this key alone changed is read, so that an error is this key's.
                if let Err(error) = Config::deserialize(with(&path, value.clone())) {
                    return Err(wrong(format!("'{path}' cannot be {value}: {}", error.message())));
                }
                *slot = value;
            }
            (slot, value) => {
                let most = if slot.is_integer() { " (up to 9223372036854775807)" } else { "" };
                let wanted = slot.type_str();
                return Err(wrong(format!(
                    "'{path}' takes a value of type {wanted}{most}, but {value} was given"
                )));
            }
        }
    }
    Ok(())
}

/// The default configuration with one value changed.
fn with(path: &str, value: Value) -> Table {
    let mut whole = Value::Table(table(&Config::default()));
    if let Some(slot) = path.split('.').try_fold(&mut whole, |inner, key| inner.get_mut(key)) {
        *slot = value;
    }
    match whole {
        Value::Table(whole) => whole,
        _ => Table::new(),
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// The known key most like `key`, if any is: one of the same table, else one of another.
fn nearest(siblings: &Table, prefix: &str, key: &str) -> Option<String> {
    if let Some(sibling) = names::nearest(key, siblings.keys().map(String::as_str)) {
        return Some(join(prefix, sibling));
    }
    let mut paths = Vec::new();
    collect_keys(&table(&Config::default()), "", &mut paths);
    let names: Vec<&str> = paths.iter().filter_map(|path| path.rsplit('.').next()).collect();
    let name = names::nearest(key, names.iter().copied())?;
    names.iter().position(|other| *other == name).map(|at| paths[at].clone())
}

fn collect_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let path = join(prefix, key);
        if let Value::Table(inner) = value {
            collect_keys(inner, &path, keys);
        }
        keys.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &[&str]) -> Result<Config, ConfigError> {
        read(None, &settings.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_fit_and_round_trip() {
        let config = set(&[]).unwrap();
        assert_eq!(config, Config::default());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), write(&config)).unwrap();
        assert_eq!(read(Some(file.path()), &[]).unwrap(), config);
    }

    #[test]
    fn settings_override_with_the_types_of_the_keys() {
        let config =
            set(&["train.lr=1", "pipeline.schedule=phased", "model.generator.rope_axes=[8,8,8]"]).unwrap();
        assert_eq!(config.train.lr, 1.0);
        assert_eq!(config.pipeline.schedule, "phased");
        assert_eq!(config.model.generator.rope_axes, [8, 8, 8]);
        assert!(set(&["train.steps=many"]).unwrap_err().to_string().contains("integer"));
        assert!(set(&["train"]).unwrap_err().to_string().contains("key=value"));
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        for (given, meant) in [
            ("train.wieght_decay=0", "train.weight_decay"),
            ("pipeline.rank=2", "pipeline.ranks"),
            ("lr=1", "train.lr"),
            ("modle.llm.width=8", "model"),
        ] {
            let error = set(&[given]).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean '{meant}'")), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for setting in
            ["pipeline.ranks=0", "model.encoder.patch=5", "train.lr=-1", "model.generator.rope_axes=[1,2,3]"]
        {
            let key = setting.split('=').next().unwrap();
            assert!(set(&[setting]).unwrap_err().to_string().contains(key), "{setting}");
        }
    }
}
