//! Numbers in the environment.

use super::{EnvironmentError, Var};
use std::str::FromStr;

/// A variable's value.
///
/// # Errors
/// [`EnvironmentError::Value`] for what is no such number.
pub(super) fn number<T: FromStr>(var: Var<'_>, name: &str) -> Result<Option<T>, EnvironmentError> {
    let Some(value) = var(name) else { return Ok(None) };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(wrong(name, value, "a number, 0 or more")),
    }
}

pub(super) fn wrong(name: &str, value: String, expected: impl Into<String>) -> EnvironmentError {
    EnvironmentError::Value { name: name.into(), value, expected: expected.into() }
}
