//! Reading a configuration: defaults, then a file, then `key=value` settings; unknown keys are errors that name the
//! nearest.

use super::Config;
use crate::toml_file::{TomlError, TomlFile};
use crate::value::ValueError;
use bigmac_schedule::names;
use serde::Deserialize;
use std::collections::BTreeSet;
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
    let mut given = Given::default();
    if let Some(path) = file {
        overlay(&mut config, TomlFile::read(path)?.parse()?, "", &path.display().to_string(), &mut given)?;
    }
    apply(config, settings, file.map_or("configuration".into(), |p| p.display().to_string()), given)
}

/// `config` with `settings` of the form `a.b=c` over it, checked.
pub fn change(config: &Config, settings: &[String]) -> Result<Config, ConfigError> {
    apply(table(config), settings, "configuration".into(), Given::default())
}

/// A configuration as it was stored by serde, checked like one that a user writes.
pub fn restore(stored: &serde_json::Value) -> Result<Config, ConfigError> {
    let wrong = |message: String| ConfigError::Key { place: "configuration".into(), message };
    let stored = Value::try_from(stored).map_err(|e| wrong(e.to_string()))?;
    let Value::Table(stored) = stored else { return Err(wrong("expected a table of keys".into())) };
    let mut config = table(&Config::default());
    let mut given = Given::default();
    overlay(&mut config, stored, "", "configuration", &mut given)?;
    apply(config, &[], "configuration".into(), given)
}

/// Keys that were given, not left at what they were.
type Given = BTreeSet<String>;

fn apply(
    mut config: Table,
    settings: &[String],
    place: String,
    mut given: Given,
) -> Result<Config, ConfigError> {
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| ConfigError::Setting(setting.clone()))?;
        let over = nested(key.trim(), scalar(value.trim()));
        overlay(&mut config, over, "", &format!("--set {setting}"), &mut given)?;
    }
    let mut config: Config = Value::Table(config)
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Key { place, message: e.to_string() })?;
    // Who freezes or unfreezes the encoder means all of it, unless the projector is named too.
    if given.contains("model.encoder.frozen") && !given.contains("model.projector.frozen") {
        config.model.projector.frozen = config.model.encoder.frozen;
    }
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

/// Puts `over` over `base`, which has every key there is, and notes the keys.
fn overlay(
    base: &mut Table,
    over: Table,
    prefix: &str,
    place: &str,
    given: &mut Given,
) -> Result<(), ConfigError> {
    for (key, value) in over {
        let path = join(prefix, &key);
        let wrong = |message| ConfigError::Key { place: place.into(), message };
        let Some(slot) = base.get_mut(&key) else {
            let nearest = nearest(base, prefix, &key);
            let hint = names::hint(nearest.as_deref());
            return Err(wrong(format!("'{path}' is not a valid key{hint}")));
        };
        match (slot, value) {
            (Value::Table(inner), Value::Table(value)) => overlay(inner, value, &path, place, given)?,
            (Value::Table(_), value) => {
                let kind = value.type_str();
                return Err(wrong(format!("'{path}' is a table of keys, but {kind} was given")));
            }
            (slot @ Value::Float(_), Value::Integer(i)) => {
                *slot = Value::Float(i as f64);
                given.insert(path);
            }
            (slot, value) if slot.type_str() == value.type_str() => {
                // A configuration with this key alone changed is read, so that an error is this key's.
                if let Err(error) = Config::deserialize(with(&path, value.clone())) {
                    return Err(wrong(format!("'{path}' cannot be {value}: {}", error.message())));
                }
                *slot = value;
                given.insert(path);
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
    fn the_projector_follows_the_encoder_where_it_is_not_named() {
        let frozen = |settings: &[&str]| {
            let model = set(settings).unwrap().model;
            (model.encoder.frozen, model.projector.frozen)
        };
        assert_eq!(frozen(&[]), (false, false));
        assert_eq!(frozen(&["model.encoder.frozen=true"]), (true, true));
        assert_eq!(frozen(&["model.projector.frozen=true"]), (false, true));
        for order in [[0, 1], [1, 0]] {
            let settings = ["model.encoder.frozen=true", "model.projector.frozen=false"];
            assert_eq!(frozen(&order.map(|i| settings[i])), (true, false));
        }
        // Of a resumed run, too, and from a file as from the command line.
        let stage = set(&["model.encoder.frozen=true", "model.projector.frozen=false"]).unwrap();
        assert_eq!(change(&stage, &[]).unwrap(), stage);
        let all = change(&stage, &["model.encoder.frozen=false".to_owned()]).unwrap().model;
        assert!(!all.encoder.frozen && !all.projector.frozen);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[model.encoder]\nfrozen = true\n").unwrap();
        let model = read(Some(file.path()), &[]).unwrap().model;
        assert!(model.encoder.frozen && model.projector.frozen);
    }

    #[test]
    fn a_configuration_from_before_the_projector_had_a_key_freezes_it_with_the_encoder() {
        for frozen in [true, false] {
            let config = set(&[&format!("model.encoder.frozen={frozen}")]).unwrap();
            let mut old = table(&config);
            old["model"].as_table_mut().unwrap().remove("projector").unwrap();
            assert_eq!(Value::Table(old).try_into::<Config>().unwrap(), config);
        }
    }

    #[test]
    fn rates_of_groups_are_above_0() {
        assert_eq!(set(&["train.lr_scale.projector=10"]).unwrap().train.lr_scale.projector, 10.0);
        for (scale, more) in [("0", "model.llm.frozen = true"), ("-1", ""), ("inf", ""), ("nan", "")] {
            let error = set(&[&format!("train.lr_scale.llm={scale}")]).unwrap_err().to_string();
            assert!(error.starts_with("train.lr_scale.llm = ") && error.contains("above 0"), "{error}");
            assert!(error.contains(more), "{error}");
        }
    }

    #[test]
    fn something_has_to_learn_if_only_the_projector() {
        let all = ["model.encoder.frozen=true", "model.llm.frozen=true", "model.generator.frozen=true"];
        let error = set(&all).unwrap_err().to_string();
        assert!(error.contains("something has to learn"), "{error}");
        assert!(error.contains("model.projector.frozen = false trains the projector alone"), "{error}");
        let [encoder, llm, generator] = all;
        set(&[encoder, llm, generator, "model.projector.frozen=false"]).unwrap();
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
