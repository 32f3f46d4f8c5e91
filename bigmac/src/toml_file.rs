//! TOML files whose errors name the place: file, line and column.

use bigmac_runtime::fs::read_text;
use bigmac_schedule::names;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a TOML file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TomlError {
    /// The file cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is not TOML, or holds an unknown key, another type, or a value out of its range. Lines and columns
    /// count from 1.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Content { path: PathBuf, line: usize, column: usize, message: String },
}

/// The text of a TOML file and where it came from.
#[derive(Debug)]
pub struct TomlFile {
    path: PathBuf,
    text: String,
}

impl TomlFile {
    /// Reads the text.
    pub fn read(path: &Path) -> Result<TomlFile, TomlError> {
        let text = read_text(path).map_err(|source| TomlError::Read { path: path.to_owned(), source })?;
        Ok(TomlFile { path: path.to_owned(), text })
    }

    /// A text that is there already, under a name for messages.
    pub fn from_text(name: impl Into<PathBuf>, text: impl Into<String>) -> TomlFile {
        TomlFile { path: name.into(), text: text.into() }
    }

    /// What the text says; an error names the known key that is most like an unknown one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, TomlError> {
        toml::from_str(&self.text).map_err(|error: toml::de::Error| {
            let message = error.message().replace('\n', ", ");
            // Serde names an unknown key first and the known ones after it, each in backticks.
            let mut keys = message.split('`').skip(1).step_by(2);
            let unknown = if message.starts_with("unknown field") { keys.next() } else { None };
            let nearest = unknown.and_then(|given| names::nearest(given, keys));
            let hint = names::hint(nearest);
            self.wrong(error.span().unwrap_or(0..0), message.clone() + &hint)
        })
    }

    /// The error that the text at `span` (in bytes) is wrong.
    pub fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> TomlError {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        TomlError::Content {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }
}

/// Reads a number that is finite and not negative, such as a time.
pub fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(D::Error::custom(format!("got {value}, expected a finite number from 0")))
}
