//! What a checkpoint says of itself: where the run was, its configuration, its data, and checksums.

use super::super::TrainError;
use crate::config::{self, Config};
use crate::data::Dataset;
use bigmac_runtime::Error;
use bigmac_runtime::fs::{read_text, write_atomically};
use bigmac_runtime::open::open_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the layout.
const FORMAT: u32 = 2;
/// The file in a checkpoint's directory.
pub(super) const STATE: &str = "state.json";

/// Where a run was.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    format: u32,
    /// Steps done.
    pub step: u64,
    /// The run's configuration.
    pub config: Config,
    /// The samples that it learned from.
    pub data: DataState,
    /// SHA-256 of every safetensors file, by its path in the directory.
    pub(super) sha256: BTreeMap<String, String>,
}

/// As it is read: the configuration is looked at like one that a user wrote.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    step: u64,
    config: serde_json::Value,
    data: DataState,
    sha256: BTreeMap<String, String>,
}

/// What is remembered of a training set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataState {
    /// How many samples there are.
    pub samples: usize,
    /// SHA-256 of their tokens and of the names of their pictures, in order. What pictures show is not looked at.
    pub sha256: String,
}

impl DataState {
    /// Of a data set as it is now.
    pub fn of(dataset: &Dataset) -> Self {
        let mut hash = Sha256::new();
        for sample in &dataset.samples {
            let mut number = |value: usize| hash.update((value as u64).to_le_bytes());
            number(sample.tokens.len());
            sample.tokens.iter().for_each(|&token| number(token as usize));
            number(sample.learned.len());
            sample.learned.iter().for_each(|range| {
                number(range.start as usize);
                number(range.end as usize);
            });
            number(sample.images.len());
            sample.images.iter().for_each(|image| number(image.tiling.tiles().count()));
            let pictures = sample.images.iter().map(|image| &image.picture).chain(&sample.draw);
            for picture in pictures {
                // Its name alone: a data set may move.
                let path = picture.to_string();
                let name = path.rsplit('/').next().unwrap_or_default();
                hash.update((name.len() as u64).to_le_bytes());
                hash.update(name);
            }
        }
        DataState { samples: dataset.len(), sha256: hex(&hash.finalize()) }
    }
}

impl State {
    pub(super) fn new(step: u64, config: Config, data: DataState, sha256: BTreeMap<String, String>) -> Self {
        State { format: FORMAT, step, config, data, sha256 }
    }

    /// The state in a checkpoint's directory.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] naming the file when it is missing, damaged or of another format, and what of its
    /// configuration cannot be used.
    pub(super) fn read(directory: &Path) -> Result<State, TrainError> {
        let path = directory.join(STATE);
        let text = read_text(&path).map_err(|e| Error::io(&path, e))?;
        let wrong = |message: String| Error::format(&path, message);
        let damaged = |e| wrong(format!("not the state of a checkpoint ({e}); use another checkpoint"));
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        if let Some(format) = value.get("format").and_then(serde_json::Value::as_u64)
            && format != u64::from(FORMAT)
        {
            let message = format!(
                "the checkpoint has format {format}, this program reads {FORMAT}; use the version of the program that wrote it"
            );
            return Err(wrong(message).into());
        }
        let Stored { format, step, config, data, sha256 } = serde_json::from_value(value).map_err(damaged)?;
        let config = config::restore(&config).map_err(|e| wrong(e.to_string()))?;
        Ok(State { format, step, config, data, sha256 })
    }

    /// Writes it to a checkpoint's directory.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] of the file system.
    pub(super) fn write(&self, directory: &Path) -> Result<(), TrainError> {
        let path = directory.join(STATE);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(write_atomically(&path, |w| w.write_all(text.as_bytes()))?)
    }

    /// Checks that a file of the directory holds what was written.
    ///
    /// # Errors
    /// [`Error::Format`] naming the file.
    pub(super) fn verify(&self, directory: &Path, name: &str) -> Result<(), TrainError> {
        let Some(wanted) = self.sha256.get(name) else {
            let message = format!("the SHA-256 of {name} is not there; use another checkpoint");
            return Err(Error::format(&directory.join(STATE), message).into());
        };
        let path = directory.join(name);
        if sha256(&path)? == *wanted {
            return Ok(());
        }
        let message = "the file has changed since the checkpoint wrote it (its SHA-256 is another); use another \
                       checkpoint, or read it as it is with --no-verify";
        Err(Error::format(&path, message).into())
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, TrainError> {
    let mut hash = Sha256::new();
    let mut file = open_file(path).map_err(|e| Error::io(path, e))?;
    std::io::copy(&mut file, &mut hash).map_err(|e| Error::io(path, e))?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
