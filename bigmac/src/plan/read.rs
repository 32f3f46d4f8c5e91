//! Reading descriptions: by the name of one that comes with the program, or from a TOML file.

use super::error::PlanError;
use crate::toml_file::TomlFile;
use crate::value::ValueError;
use bigmac_schedule::names;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Something that is described by a TOML file.
pub trait Description: DeserializeOwned {
    /// What it is, in messages.
    const KIND: &'static str;
    /// The descriptions that come with the program: name and text.
    const SHIPPED: &'static [(&'static str, &'static str)];

    /// Checks what types alone do not.
    fn check(&self) -> Result<(), ValueError>;

    /// The description of that name, or of that file where the name ends in `.toml`.
    fn load(name: &str) -> Result<Self, PlanError> {
        let toml = |source| PlanError::Toml { kind: Self::KIND, source };
        let path = Path::new(name);
        let file = match names::find(Self::KIND, name, Self::SHIPPED, |(known, _)| known) {
            Ok((_, text)) => TomlFile::from_text(name, text),
            Err(_) if path.extension().is_some_and(|extension| extension == "toml") => {
                TomlFile::read(path).map_err(toml)?
            }
            Err(unknown) => return Err(unknown.into()),
        };
        let described: Self = file.parse().map_err(toml)?;
        described.check().map_err(PlanError::at(name))?;
        Ok(described)
    }
}
