//! Checks of values that a user gave, in a configuration or in a description.

use serde::Serialize;
use std::fmt::Display;

/// A value that does not fit.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ValueError {
    #[error("{key} = {given}, expected {wanted}")]
    Value { key: String, given: String, wanted: String },
    /// Values that fit each other, and together need more memory than there is. Counts are in bytes.
    #[error(
        "the model needs at least {} of memory, but there are {} ({limit}): it would take {parts}; choose smaller sizes{}",
        size(*needed), size(*available), if limit.contains("machine") { "" } else { ", or raise the limit" }
    )]
    Memory { needed: f64, available: f64, limit: String, parts: String },
}

impl ValueError {
    /// The same, of a key in a table.
    pub fn within(self, table: &str) -> ValueError {
        match self {
            ValueError::Value { key, given, wanted } => {
                ValueError::Value { key: format!("{table}.{key}"), given, wanted }
            }
            memory => memory,
        }
    }
}

/// A number of bytes for people.
pub fn size(bytes: f64) -> String {
    const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value >= 1024.0 => format!("{value:.1e} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// The largest count of anything: far beyond use.
pub const MOST: usize = 10_000_000;

/// Checks that a value fits; `wanted` says what does.
pub fn require(
    fits: bool,
    key: &str,
    given: impl Display,
    wanted: impl Into<String>,
) -> Result<(), ValueError> {
    if fits {
        return Ok(());
    }
    Err(ValueError::Value { key: key.to_owned(), given: given.to_string(), wanted: wanted.into() })
}

/// Counts that must be at least 1, and not so large that they can only be a typing error.
pub fn counts(values: &[(&str, usize)]) -> Result<(), ValueError> {
    values.iter().try_for_each(|(key, value)| {
        require(*value >= 1, key, value, "at least 1")?;
        require(*value <= MOST, key, value, format!("at most {MOST}"))
    })
}

/// The same for all whole numbers of a table, `name`, and of tables in it.
pub fn all_counts(name: &str, sizes: &impl Serialize) -> Result<(), ValueError> {
    match toml::Value::try_from(sizes) {
        Ok(table) => table_counts(name, &table),
        Err(error) => require(false, name, error, "numbers and flags"),
    }
}

fn table_counts(name: &str, value: &toml::Value) -> Result<(), ValueError> {
    match value {
        toml::Value::Integer(count) => counts(&[(name, usize::try_from(*count).unwrap_or_default())]),
        toml::Value::Array(values) => values.iter().try_for_each(|value| array_value(name, value)),
        toml::Value::Table(table) => {
            table.iter().try_for_each(|(key, value)| table_counts(&format!("{name}.{key}"), value))
        }
        _ => Ok(()),
    }
}

/// A number in a list, which may be 0.
fn array_value(name: &str, value: &toml::Value) -> Result<(), ValueError> {
    let Some(given) = value.as_integer() else { return Ok(()) };
    let fits = usize::try_from(given).is_ok_and(|count| count <= MOST);
    require(fits, name, value, format!("numbers from 0, at most {MOST}"))
}

/// A count that must divide another value.
pub fn divisor(key: &str, value: usize, name: &str, whole: usize) -> Result<(), ValueError> {
    require(whole.is_multiple_of(value), key, value, format!("a divisor of {name} = {whole}"))
}

/// Numbers that must be finite and above 0.
pub fn positive(values: &[(&str, f64)]) -> Result<(), ValueError> {
    values.iter().try_for_each(|(key, value)| {
        require(value.is_finite() && *value > 0.0, key, value, "a finite number above 0")
    })
}

/// Numbers that must be finite and at least 0.
pub fn not_negative(values: &[(&str, f64)]) -> Result<(), ValueError> {
    values.iter().try_for_each(|(key, value)| {
        require(value.is_finite() && *value >= 0.0, key, value, "a finite number from 0")
    })
}
