//! Where two configurations differ.

use super::{Config, Model};
use serde::Serialize;
use toml::Value;

/// The first key that `matters` at which two models differ, with both values.
pub fn first_difference(
    a: &Model,
    b: &Model,
    matters: impl Fn(&str) -> bool,
) -> Option<(String, String, String)> {
    differences("model.", a, b).into_iter().find(|(key, ..)| matters(key))
}

/// Every key at which two configurations differ, with both values.
pub fn all_differences(a: &Config, b: &Config) -> Vec<(String, String, String)> {
    differences("", a, b)
}

/// Every key of a configuration, with its value.
pub fn entries(config: &Config) -> Vec<(String, String)> {
    keys("", config)
}

fn differences(prefix: &str, a: &impl Serialize, b: &impl Serialize) -> Vec<(String, String, String)> {
    let both = keys(prefix, a).into_iter().zip(keys(prefix, b));
    let differ = both.filter(|((_, a), (_, b))| a != b);
    differ.map(|((key, a), (_, b))| (key, a, b)).collect()
}

/// Every key with its value.
fn keys(prefix: &str, of: &impl Serialize) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    // Numbers, flags and strings are all TOML.
    if let Ok(value) = Value::try_from(of) {
        flatten(prefix, value, &mut keys);
    }
    keys
}

/// `prefix` ends with the dot before a key.
fn flatten(prefix: &str, value: Value, keys: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => table.into_iter().for_each(|(key, value)| match value {
            Value::Table(_) => flatten(&format!("{prefix}{key}."), value, keys),
            value => keys.push((format!("{prefix}{key}"), value.to_string())),
        }),
        value => keys.push((prefix.to_owned(), value.to_string())),
    }
}
