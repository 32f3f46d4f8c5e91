//! Reading a configuration: defaults, then a file, then `key=value` settings; unknown keys are errors that name the nearest.

use super::Config;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration {}: {source}; give a TOML file, such as configs/shapes.toml, or none for the default", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
    },
    /// A key that doesn't exist.
    #[error("{place}: there is no key '{key}'{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean '{n}'?")))]
    UnknownKey {
        /// The file or the flag.
        place: String,
        /// The key as it was written.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type.
    #[error("{place}: {message}")]
    Type {
        /// The file or the flag.
        place: String,
        /// Which key, what was given, what is wanted.
        message: String,
    },
    /// A setting that is not `key=value`.
    #[error("--set {setting}: write it as key=value, such as --set train.lr=0.001")]
    Setting {
        /// What was given.
        setting: String,
    },
    /// A value out of its range.
    #[error("{key} = {given}, but wanted is {wanted}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        given: String,
        /// What fits.
        wanted: String,
    },
}

/// The configuration of `file` (none: the default) with `settings` of the form `a.b=c` over it, checked.
///
/// # Errors
/// [`ConfigError`].
pub fn read(file: Option<&Path>, settings: &[String]) -> Result<Config, ConfigError> {
    let mut config = table(&Config::default());
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let table: Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: path.into(),
            message: e.to_string(),
        })?;
        overlay(&mut config, table, "", &path.display().to_string())?;
    }
    apply(config, settings, file.map_or("configuration".into(), |p| p.display().to_string()))
}

/// `config` with `settings` of the form `a.b=c` over it, checked.
///
/// # Errors
/// [`ConfigError`].
pub fn change(config: &Config, settings: &[String]) -> Result<Config, ConfigError> {
    apply(table(config), settings, "configuration".into())
}

fn apply(mut config: Table, settings: &[String], place: String) -> Result<Config, ConfigError> {
    for setting in settings {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| ConfigError::Setting { setting: setting.clone() })?;
        overlay(&mut config, nested(key.trim(), scalar(value.trim())), "", &format!("--set {setting}"))?;
    }
    let config: Config = Value::Table(config)
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Type { place, message: e.to_string() })?;
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
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (None, _) => {
                let nearest = nearest(&path);
                return Err(ConfigError::UnknownKey { place: place.into(), key: path, nearest });
            }
            (Some(Value::Table(inner)), Value::Table(value)) => overlay(inner, value, &path, place)?,
            (Some(Value::Table(_)), value) => {
                let message = format!("'{path}' is a table of keys, but {} was given", value.type_str());
                return Err(ConfigError::Type { place: place.into(), message });
            }
            (Some(slot @ Value::Float(_)), Value::Integer(i)) => *slot = Value::Float(i as f64),
            (Some(slot), value) if slot.type_str() == value.type_str() => {
                // A configuration of this key alone is read, so that an error is this key's.
                if let Err(error) = Config::deserialize(nested(&path, value.clone())) {
                    let message = format!("'{path}' can't be {value}: {}", error.message());
                    return Err(ConfigError::Type { place: place.into(), message });
                }
                *slot = value;
            }
            (Some(slot), value) => {
                let most = if slot.is_integer() { " (up to 9223372036854775807)" } else { "" };
                let message = format!(
                    "'{path}' takes a value of type {}{most}, but {value} was given",
                    slot.type_str()
                );
                return Err(ConfigError::Type { place: place.into(), message });
            }
        }
    }
    Ok(())
}

/// The known key most like `path`, if any is close.
fn nearest(path: &str) -> Option<String> {
    let mut known = Vec::new();
    collect_keys(&table(&Config::default()), "", &mut known);
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .into_iter()
        .map(|key| {
            (strsim::jaro_winkler(&key, path).max(strsim::jaro_winkler(&last(&key), &last(path)) - 0.01), key)
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

fn collect_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
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
