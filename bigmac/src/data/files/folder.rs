//! Which files of a folder are the data set.

use super::super::error::DataError;
use super::{DESCRIPTION, DatasetFiles, WRITING_MARK, shards};
use std::path::Path;

/// Finds the files of `split` in a folder. Each kind of file that data sets lie in is asked in turn.
pub(super) fn find(folder: &Path, split: &str) -> Result<DatasetFiles, DataError> {
    if folder.join(WRITING_MARK).exists() && !folder.join(DESCRIPTION).exists() {
        let problem = "holds a data set whose writing was interrupted or still goes on; run `bigmac data shapes --out` on it \
                       again with the same --samples and --seed";
        return Err(DataError::contents(folder, problem));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::read(folder))? {
        names.push(entry.map_err(DataError::read(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if let Some(found) = shards::find(folder, split, &names)? {
        return Ok(found);
    }
    if let Some(found) = json(folder, split, &names) {
        return Ok(found);
    }
    let found = names.into_iter().filter(|name| is_json(name)).collect();
    Err(DataError::NoDataset { folder: folder.to_path_buf(), wanted: format!("{split}.jsonl"), found })
}

/// A split in a JSON file of `names`, the sorted names of what is in the folder.
fn json(folder: &Path, split: &str, names: &[String]) -> Option<DatasetFiles> {
    for name in [format!("{split}.jsonl"), format!("{split}.json")] {
        if folder.join(&name).is_file() {
            return Some(DatasetFiles::one(folder.join(name)));
        }
    }
    let files: Vec<&String> = names.iter().filter(|name| is_json(name)).collect();
    match files.as_slice() {
        [only] if split == "train" => Some(DatasetFiles::one(folder.join(only))),
        _ => None,
    }
}

fn is_json(name: &str) -> bool {
    (name.ends_with(".jsonl") || name.ends_with(".json")) && name != DESCRIPTION
}
