//! TOML files whose errors name the place: file, line and column.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use thiserror::Error as ThisError;

/// Why a TOML file can't be used.
#[derive(Debug, ThisError)]
pub enum TomlError {
    /// The file can't be read.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or holds another key or type than is wanted, or a value out of its range.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character within the line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

/// The text of a TOML file and where it came from.
#[derive(Debug)]
pub struct TomlFile {
    path: PathBuf,
    text: String,
}

impl TomlFile {
    /// Reads the text.
    ///
    /// # Errors
    /// [`TomlError::Read`]: there is no such file, it may not be read, or it is not UTF-8.
    pub fn read(path: &Path) -> Result<TomlFile, TomlError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TomlError::Read { path: path.to_owned(), source })?;
        Ok(TomlFile { path: path.to_owned(), text })
    }

    /// A text that is there already, under a name for messages.
    pub fn from_text(name: impl Into<PathBuf>, text: impl Into<String>) -> TomlFile {
        TomlFile { path: name.into(), text: text.into() }
    }

    /// What the text says.
    ///
    /// # Errors
    /// [`TomlError::Content`] with line and column.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, TomlError> {
        toml::from_str(&self.text)
            .map_err(|error| self.wrong(error.span().unwrap_or(0..0), error.message().replace('\n', ", ")))
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
///
/// # Errors
/// Any other number, NaN included.
pub fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{value} is given, but the number has to be finite and not negative")))
}
