//! The files that data sets lie in: which of a path's files are meant, and how each kind is read record by record.

mod json;

pub use json::RecordReader;

use super::error::DataError;
use std::path::{Path, PathBuf};

/// File in a folder while a data set is being written to it.
pub(in crate::data) const WRITING_MARK: &str = ".writing";
/// Description of a data set that `bigmac data shapes` wrote; no data set itself.
pub(in crate::data) const DESCRIPTION: &str = "dataset.json";

/// The file of a data set: `path` itself, or in a folder `SPLIT.jsonl` or `SPLIT.json`. For the split `train` a
/// folder's only JSON or JSONL file does as well; any other split is never guessed, so that nothing is evaluated on
/// what it was trained on.
///
/// # Errors
/// When there is no such path, when a folder does not show which file is meant, or when its writing was interrupted.
pub fn find_dataset_file(path: &Path, split: &str) -> Result<PathBuf, DataError> {
    let meta = std::fs::metadata(path).map_err(DataError::read(path))?;
    if !meta.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.join(WRITING_MARK).exists() && !path.join(DESCRIPTION).exists() {
        let problem = "holds a data set whose writing was interrupted or still goes on; run `bigmac data shapes --out` on it \
                       again with the same --samples and --seed";
        return Err(DataError::contents(path, problem));
    }
    for name in [format!("{split}.jsonl"), format!("{split}.json")] {
        if path.join(&name).is_file() {
            return Ok(path.join(name));
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(DataError::read(path))? {
        let name = entry.map_err(DataError::read(path))?.file_name().to_string_lossy().into_owned();
        if (name.ends_with(".jsonl") || name.ends_with(".json")) && name != DESCRIPTION {
            found.push(name);
        }
    }
    found.sort();
    match found.as_slice() {
        [only] if split == "train" => Ok(path.join(only)),
        _ => {
            Err(DataError::NoDataset { folder: path.to_path_buf(), wanted: format!("{split}.jsonl"), found })
        }
    }
}
