//! Which files of a folder are the data set.

use super::super::error::DataError;
use super::unseen::{TRAIN, is_unseen};
use super::{DESCRIPTION, DatasetFiles, WRITING_MARK, shards};
use std::path::Path;

/// The split that is scored; under this name, or the first of these that a folder has.
const HELDOUT: [&str; 3] = ["heldout", "validation", "test"];

/// A Hugging Face image folder's list of its pictures and their texts.
const METADATA: &str = "metadata.jsonl";
/// The same as a table.
const METADATA_TABLES: [&str; 1] = ["metadata.csv"];
/// JSON files that describe a data set of the Hugging Face Hub, and hold no records.
const DESCRIPTIONS: [&str; 3] = [DESCRIPTION, "dataset_info.json", "dataset_infos.json"];

/// Finds the files of `split` in a folder. Each kind of file that data sets lie in is asked in turn.
pub(super) fn find(folder: &Path, split: &str) -> Result<DatasetFiles, DataError> {
    if folder.join(WRITING_MARK).exists() && !folder.join(DESCRIPTION).exists() {
        let problem = "holds a data set whose writing was interrupted or still goes on; run `bigmac data shapes --out` \
                       on it again with the same --samples and --seed";
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
    for name in split_names(split) {
        if let Some(found) = json(folder, name)? {
            return Ok(found);
        }
    }
    let (unseen, files): (Vec<String>, Vec<String>) =
        names.into_iter().filter(|name| is_json(name)).partition(|name| is_unseen(name));
    if split == TRAIN {
        if let [only] = files.as_slice() {
            return Ok(DatasetFiles::one(folder.join(only)));
        }
        if let Some(table) = METADATA_TABLES.iter().find(|table| folder.join(table).is_file()) {
            return Err(metadata_table(&folder.join(table)));
        }
        if files.is_empty() && !unseen.is_empty() {
            let unseen = unseen.join(", ");
            let problem = format!(
                "has no {TRAIN}.jsonl, only samples that are kept for evaluation ({unseen}); put the training samples \
                 into {TRAIN}.jsonl, or give their file as data.path"
            );
            return Err(DataError::contents(folder, problem));
        }
    }
    let mut found = [files, unseen].concat();
    found.sort();
    Err(DataError::NoDataset { folder: folder.to_path_buf(), wanted: format!("{split}.jsonl"), found })
}

/// The names under which a folder may hold `split`, the first that it has being taken.
pub(super) fn split_names(split: &str) -> Vec<&str> {
    if split == HELDOUT[0] { HELDOUT.to_vec() } else { vec![split] }
}

/// A split in a JSON file of its own: `SPLIT.jsonl`, `SPLIT.json`, or an image folder's list (`SPLIT/metadata.jsonl`).
fn json(folder: &Path, split: &str) -> Result<Option<DatasetFiles>, DataError> {
    let names = [format!("{split}.jsonl"), format!("{split}.json"), format!("{split}/{METADATA}")];
    let there: Vec<&String> = names.iter().filter(|name| folder.join(name).is_file()).collect();
    match there.as_slice() {
        [only] => Ok(Some(DatasetFiles::one(folder.join(only)))),
        [one, other, ..] => {
            let problem =
                format!("has both {one} and {other}; keep one of them, or give the one that is meant");
            Err(DataError::contents(folder, problem))
        }
        [] => {
            let table = METADATA_TABLES
                .iter()
                .map(|table| folder.join(split).join(table))
                .find(|table| table.is_file());
            table.map_or(Ok(None), |table| Err(metadata_table(&table)))
        }
    }
}

fn metadata_table(table: &Path) -> DataError {
    let problem = "is a table, which is not read; write it as metadata.jsonl, a line for each picture: {\"file_name\": \
                   \"a.png\", \"text\": \"a cat\"}";
    DataError::contents(table, problem)
}

fn is_json(name: &str) -> bool {
    (name.ends_with(".jsonl") || name.ends_with(".json")) && !DESCRIPTIONS.contains(&name)
}
