//! Where the samples to train on and the unseen ones of a configuration are.

use super::error::DataError;
use super::files::{DatasetFiles, find_dataset_file};
use super::shapes::{ShapesSpec, write_shapes};
use crate::config::Data;
use std::path::{Path, PathBuf};

/// The split that is trained on.
pub const TRAIN: &str = "train";
/// The split of unseen samples.
pub const HELDOUT: &str = "heldout";
/// Where the embedded data set is written on first use, below the current directory.
pub const SHAPES_FOLDER: &str = "data/shapes";

/// What is trained on: as configured, else the shapes set, which is written where it is missing. `progress` is told
/// pictures as they are written.
///
/// # Errors
/// When the shapes set cannot be written.
pub fn training_path(data: &Data, progress: &(dyn Fn(usize) + Sync)) -> Result<PathBuf, DataError> {
    if !data.path.is_empty() {
        return Ok(PathBuf::from(&data.path));
    }
    let folder = PathBuf::from(format!("{SHAPES_FOLDER}-{}", data.shapes));
    let spec = ShapesSpec { samples: 2 * data.shapes, ..ShapesSpec::default() };
    write_shapes(&folder, &spec, false, progress)?;
    Ok(folder)
}

/// The unseen samples of a run that trains on `train`: as configured, else those beside them, if there are any.
///
/// # Errors
/// When the folder cannot be looked into, or when what is configured is trained on too.
pub fn heldout_path(data: &Data, train: &Path) -> Result<Option<PathBuf>, DataError> {
    if !data.heldout.is_empty() {
        let path = PathBuf::from(&data.heldout);
        if let Some(file) = shared_file(train, &path) {
            return Err(DataError::Value(format!(
                "data.heldout = '{}' holds {}, which is trained on too; unseen samples must be unseen",
                data.heldout,
                file.display()
            )));
        }
        return Ok(Some(path));
    }
    let folder = if train.is_dir() { Some(train) } else { train.parent() };
    // A bare file name has an empty parent: the current directory.
    let folder = folder.filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match find_dataset_file(folder, HELDOUT) {
        // What is trained on is found again where data.path names the folder's held-out file itself.
        Ok(path) if shared_file(train, &path).is_some() => Ok(None),
        Ok(path) => Ok(Some(path)),
        Err(DataError::NoDataset { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of both splits. What cannot be found has none: reading it is an error of its own.
fn shared_file(train: &Path, heldout: &Path) -> Option<PathBuf> {
    let files = |path, split| DatasetFiles::find(path, split).map(|found| found.files).unwrap_or_default();
    let trained: Vec<PathBuf> =
        files(train, TRAIN).iter().filter_map(|file| file.canonicalize().ok()).collect();
    let shared = |file: &PathBuf| file.canonicalize().is_ok_and(|file| trained.contains(&file));
    files(heldout, HELDOUT).iter().map(|file| file.to_path_buf()).find(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_samples_are_not_those_that_are_trained_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let named = |name: &str| path(name).to_string_lossy().into_owned();
        std::fs::write(path("train.jsonl"), "{}").unwrap();
        std::fs::write(path("heldout.jsonl"), "{}").unwrap();
        let found = |data: &Data| {
            let train = training_path(data, &|_| ()).unwrap();
            heldout_path(data, &train).map_err(|e| e.to_string())
        };
        let data = Data { path: named(""), ..Data::default() };
        assert_eq!(found(&data).unwrap(), Some(path("heldout.jsonl")));
        let data = Data { path: named("train.jsonl"), ..Data::default() };
        assert_eq!(found(&data).unwrap(), Some(path("heldout.jsonl")));
        // Trained on itself, it is not found beside itself.
        let data = Data { path: named("heldout.jsonl"), ..Data::default() };
        assert_eq!(found(&data).unwrap(), None);
        for (train, heldout) in [("", "train.jsonl"), ("train.jsonl", "./train.jsonl"), ("heldout.jsonl", "")]
        {
            let data = Data { path: named(train), heldout: named(heldout), ..Data::default() };
            let error = found(&data).unwrap_err();
            assert!(error.contains("which is trained on too; unseen samples must be unseen"), "{error}");
        }
        // A path that is not there is told by whoever reads it.
        let data = Data { path: named("train.jsonl"), heldout: named("none"), ..Data::default() };
        assert_eq!(found(&data).unwrap(), Some(path("none")));
    }
}
