//! Where two models differ.

use super::Model;
use toml::Value;

/// The first key that `matters` at which two models differ, with both values.
pub fn first_difference(
    a: &Model,
    b: &Model,
    matters: impl Fn(&str) -> bool,
) -> Option<(String, String, String)> {
    let mut both = keys(a).into_iter().zip(keys(b));
    let ((key, a), (_, b)) = both.find(|((key, a), (_, b))| a != b && matters(key))?;
    Some((key, a, b))
}

/// Every key of a model with its value.
fn keys(model: &Model) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    // Numbers, flags and strings are all TOML.
    if let Ok(value) = Value::try_from(model) {
        flatten("model".into(), value, &mut keys);
    }
    keys
}

fn flatten(path: String, value: Value, keys: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            table.into_iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, keys));
        }
        value => keys.push((path, value.to_string())),
    }
}
