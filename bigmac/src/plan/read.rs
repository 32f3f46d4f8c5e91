//! Reading descriptions: by the name of one that comes with the program, or from a TOML file.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::PlanError;
use crate::toml_file::{TomlError, TomlFile};

/// Something that is described by a TOML file.
pub trait Description: DeserializeOwned {
    /// What it is, in messages.
    const KIND: &'static str;
    /// The descriptions that come with the program: name and text.
    const SHIPPED: &'static [(&'static str, &'static str)];

    /// Checks what types alone don't, given where the description comes from.
    ///
    /// # Errors
    /// [`PlanError::Value`] with the key, what was given and what is wanted.
    fn check(&self, place: &str) -> Result<(), PlanError>;

    /// The description of that name, or of that file where the name ends in `.toml`.
    ///
    /// # Errors
    /// [`PlanError`]: a name that isn't known, a file that can't be read, TOML that is wrong, a value that can't be.
    fn load(name: &str) -> Result<Self, PlanError> {
        let shipped = Self::SHIPPED.iter().find(|(known, _)| *known == name);
        let path = Path::new(name);
        let file = match shipped {
            Some((_, text)) => TomlFile::from_text(name, *text),
            None if path.extension().is_some_and(|extension| extension == "toml") => {
                TomlFile::read(path).map_err(|source| toml_error(Self::KIND, source))?
            }
            None => {
                let known: Vec<&'static str> = Self::SHIPPED.iter().map(|(known, _)| *known).collect();
                let nearest = nearest(name, known.iter().copied());
                return Err(PlanError::Unknown { kind: Self::KIND, given: name.to_owned(), nearest, known });
            }
        };
        let described: Self = file.parse().map_err(|source| toml_error(Self::KIND, source))?;
        described.check(name)?;
        Ok(described)
    }
}

fn toml_error(kind: &'static str, source: TomlError) -> PlanError {
    let nearest = match &source {
        // Serde names an unknown key first and the known ones after it, each in backticks.
        TomlError::Content { message, .. } if message.starts_with("unknown field") => {
            let mut names = message.split('`').skip(1).step_by(2);
            names.next().and_then(|given| nearest(given, names))
        }
        TomlError::Content { .. } | TomlError::Read { .. } => None,
    };
    PlanError::Toml { kind, source, nearest }
}

/// The name most like what was given, if any is.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = |name: &str| strsim::jaro_winkler(given, name);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.7).then(|| best.to_owned())
}

/// The largest count of anything: far beyond use, and small enough for products of several.
const MOST: usize = 10_000_000;

/// Checks values of one description.
pub(super) struct Checker<'a> {
    pub place: &'a str,
}

impl Checker<'_> {
    /// Counts that have to be at least 1, and no slip of the hand.
    pub fn counts(&self, values: &[(&str, usize)]) -> Result<(), PlanError> {
        values.iter().try_for_each(|(key, value)| {
            self.require(*value >= 1, key, value, "at least 1")?;
            self.require(*value <= MOST, key, value, format!("at most {MOST}"))
        })
    }

    /// Numbers that have to be finite and above 0.
    pub fn positive(&self, values: &[(&str, f64)]) -> Result<(), PlanError> {
        values.iter().try_for_each(|(key, value)| {
            self.require(value.is_finite() && *value > 0.0, key, value, "a finite number above 0")
        })
    }

    /// Numbers that have to be finite and not negative.
    pub fn not_negative(&self, values: &[(&str, f64)]) -> Result<(), PlanError> {
        values.iter().try_for_each(|(key, value)| {
            self.require(value.is_finite() && *value >= 0.0, key, value, "a finite number from 0")
        })
    }

    /// Anything else.
    pub fn require(
        &self,
        fits: bool,
        key: &str,
        given: impl std::fmt::Display,
        wanted: impl Into<String>,
    ) -> Result<(), PlanError> {
        if fits {
            return Ok(());
        }
        Err(PlanError::Value {
            place: self.place.to_owned(),
            key: key.to_owned(),
            given: given.to_string(),
            wanted: wanted.into(),
        })
    }
}
