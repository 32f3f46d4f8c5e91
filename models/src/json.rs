//! Reading and writing the JSON files of Hugging Face directories.

use bigmac_runtime::fs::write_atomically;
use bigmac_runtime::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// The JSON object in a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] when the file holds no JSON object.
pub fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::format(path, "wanted a JSON object in { }")),
        Err(e) => Err(Error::format(path, format!("this is not valid JSON: {e}"))),
    }
}

/// Writes a JSON object, indented by two spaces with sorted keys, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_object(path: &Path, object: &Map<String, Value>) -> Result<()> {
    let mut sorted = Value::Object(object.clone());
    sorted.sort_all_objects();
    let text = serde_json::to_vec_pretty(&sorted).map_err(|e| Error::format(path, e.to_string()))?;
    write_atomically(path, |out| {
        out.write_all(&text)?;
        out.write_all(b"\n")
    })
}

/// A JSON object as a Rust type.
///
/// # Errors
/// [`Error::Argument`] that names `what` and the field.
pub fn parse<T: DeserializeOwned>(what: &'static str, object: &Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(object.clone())).map_err(|e| Error::argument(what, e.to_string()))
}

/// Checks that a field of a configuration is one of the values that this code computes.
///
/// # Errors
/// [`Error::Argument`] that names `what`, the field, its value and the supported ones.
pub fn expect<T: PartialEq + std::fmt::Debug>(
    what: &'static str,
    field: &str,
    given: &T,
    supported: &[T],
) -> Result<()> {
    if supported.contains(given) {
        return Ok(());
    }
    Err(Error::argument(what, format!("{field} is {given:?}, supported are {supported:?}")))
}

/// Checks that numbers of a configuration are at least 1.
///
/// # Errors
/// [`Error::Argument`] that names `what` and the field.
pub fn expect_positive(what: &'static str, fields: &[(&str, usize)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(Error::argument(what, format!("{field} is 0, wanted at least 1"))),
        None => Ok(()),
    }
}
