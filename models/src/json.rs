//! Reading and writing the JSON files of Hugging Face directories.

use bigmac_runtime::fs::{read_text, write_atomically};
use bigmac_runtime::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The JSON object in a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] when the file does not hold a JSON object.
pub fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = read_text(path).map_err(|e| Error::io(path, e))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::format(path, "expected a JSON object in { }")),
        Err(e) => Err(Error::format(path, format!("not valid JSON: {e}"))),
    }
}

/// Writes a JSON object, indented by two spaces with sorted keys, atomically.
pub fn write_object(path: &Path, object: &Map<String, Value>) -> Result<()> {
    let mut sorted = Value::Object(object.clone());
    sorted.sort_all_objects();
    let text = serde_json::to_vec_pretty(&sorted).map_err(|e| Error::format(path, e.to_string()))?;
    write_atomically(path, |out| {
        out.write_all(&text)?;
        out.write_all(b"\n")
    })
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

/// A model's configuration: its fields have the names that they have in `config.json`.
pub(crate) trait Configuration: Serialize + DeserializeOwned {
    /// What it is, in messages.
    const WHAT: &'static str;

    /// Where fields go that the computation does not need. It is the first field of a configuration, so that the others
    /// win where both have a name.
    fn extra(&mut self) -> &mut Map<String, Value>;

    /// An error that names the configuration.
    fn wrong(message: impl Into<String>) -> Error {
        Error::argument(Self::WHAT, message.into())
    }

    /// The fields as `config.json` has them, with those of `fixed` in place of their own.
    fn fields<const N: usize>(&self, fixed: [(&str, Value); N]) -> Map<String, Value> {
        // A configuration is made of numbers, flags, strings and lists of them, all of which JSON has.
        let own = serde_json::to_value(self).ok();
        let mut object = own.and_then(|value| value.as_object().cloned()).unwrap_or_default();
        object.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        object
    }

    /// Checks that numbers are at least 1.
    fn expect_positive(fields: &[(&str, usize)]) -> Result<()> {
        match fields.iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(Self::wrong(format!("{field} is 0, expected at least 1"))),
            None => Ok(()),
        }
    }

    /// Checks that one number is a multiple of another.
    fn expect_multiple(whole: (&str, usize), part: (&str, usize)) -> Result<()> {
        if whole.1.is_multiple_of(part.1) {
            return Ok(());
        }
        Err(Self::wrong(format!(
            "{} is {}, expected a multiple of {}, which is {}",
            whole.0, whole.1, part.0, part.1
        )))
    }
}

/// Fields of a `config.json` on their way into a configuration. A field that is null counts as missing, as in
/// transformers.
pub(crate) struct Fields {
    given: Map<String, Value>,
    nulls: Map<String, Value>,
}

impl Fields {
    pub fn new(object: &Map<String, Value>) -> Self {
        let (nulls, given) = object.clone().into_iter().partition(|(_, value)| value.is_null());
        Fields { given, nulls }
    }

    /// Takes a field out.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.given.remove(field)
    }

    /// A field that is a count; 0 where it is not one, which reading it will refuse.
    pub fn count(&self, field: &str) -> usize {
        self.given.get(field).and_then(Value::as_u64).unwrap_or_default() as usize
    }

    /// Gives a field its value where it is missing.
    pub fn default(&mut self, field: &str, value: impl Into<Value>) {
        self.given.entry(field).or_insert(value.into());
    }

    /// Checks that a field, where it is given, has the only value that this code computes.
    pub fn only<C: Configuration>(&self, field: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        let given = self.given.get(field).unwrap_or(&supported);
        one_of::<C>(field, given, std::slice::from_ref(&supported)).map(drop)
    }

    /// A field that has to have one of the values that this code computes.
    pub fn one_of<C: Configuration>(&self, field: &str, supported: &[Value]) -> Result<&Value> {
        one_of::<C>(field, self.given.get(field).unwrap_or(&Value::Null), supported)
    }

    /// The configuration, all other fields of the object in its `extra`.
    pub fn parse<C: Configuration>(self) -> Result<C> {
        let mut config: C =
            serde_json::from_value(Value::Object(self.given)).map_err(|e| C::wrong(e.to_string()))?;
        config.extra().extend(self.nulls);
        Ok(config)
    }
}

/// Checks that a value is one that this code computes.
pub(crate) fn one_of<'a, C: Configuration>(
    field: &str,
    given: &'a Value,
    supported: &[Value],
) -> Result<&'a Value> {
    if supported.contains(given) {
        return Ok(given);
    }
    let supported: Vec<String> = supported.iter().map(Value::to_string).collect();
    Err(C::wrong(format!("{field} is {given}, supported: {}", supported.join(", "))))
}
