//! The files that data sets lie in: which of a path's files are meant, and how each kind is read record by record.

mod folder;
mod held;
mod json;
mod parquet;
mod pattern;
mod shards;
mod tar;
mod text;
mod unseen;
mod window;

use super::error::{DataError, Place};
use super::forms::Record;
use super::picture::{Origin, PictureRef, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File in a folder while a data set is being written to it.
pub(in crate::data) const WRITING_MARK: &str = ".writing";
/// Description of a data set that `bigmac data shapes` wrote; no data set itself.
pub(in crate::data) const DESCRIPTION: &str = "dataset.json";

/// The records of a file, in order. An error of one record does not end them, so that all can be listed.
type Records = Box<dyn Iterator<Item = Result<Record, DataError>> + Send>;

/// The files of one split of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetFiles {
    /// What people call it: the file, where it is one; else the folder or the pattern that names several. Looked up
    /// again with the same split, it gives the same files.
    pub path: PathBuf,
    /// In the order in which they are read; at least one.
    pub files: Vec<Arc<Path>>,
}

impl DatasetFiles {
    /// Finds the files of `split` under `path`, which is a file (then the split does not matter) or a folder (see
    /// [`find_dataset_file`]).
    ///
    /// # Errors
    /// As [`find_dataset_file`].
    pub fn find(path: &Path, split: &str) -> Result<Self, DataError> {
        if let Some(paths) = pattern::expand(path)? {
            return several(path, split, paths);
        }
        let meta = std::fs::metadata(path);
        if meta.is_err() && path.to_string_lossy().contains('*') {
            let problem =
                "does not exist; '*' is not expanded here: give the folder, or a range such as {000..007}";
            return Err(DataError::contents(path, problem));
        }
        let meta = meta.map_err(DataError::read(path))?;
        if meta.is_dir() {
            return folder::find(path, split);
        }
        Ok(DatasetFiles::one(path.to_path_buf()))
    }

    fn one(path: PathBuf) -> Self {
        let files = vec![Arc::from(path.as_path())];
        DatasetFiles { path, files }
    }

    /// All records, file by file. Pictures are named from `images`; without it, from the folder of the file that names
    /// them. A file that cannot be opened is one error, and the next file follows.
    pub fn records(
        &self,
        images: Option<&Path>,
    ) -> impl Iterator<Item = Result<Record, DataError>> + Send + use<> {
        let images: Option<Arc<Path>> = images.map(Arc::from);
        self.files.clone().into_iter().flat_map(move |file| {
            open(&file, images.as_ref()).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        })
    }
}

/// What to give as a data set's path to read `split` of `path`: `path` itself when it is a file, or in a folder
/// `SPLIT.jsonl`, `SPLIT.json`, or the list of a Hugging Face image folder, `SPLIT/metadata.jsonl`; the split `heldout`
/// may be called `validation` or `test` too. For the split `train` a folder's only JSON or JSONL file does as well,
/// unless its name says that it is kept for evaluation; any other split is never guessed, so that nothing is evaluated
/// on what it was trained on.
///
/// # Errors
/// When there is no such path, when a folder does not show which file is meant, or when its writing was interrupted.
pub fn find_dataset_file(path: &Path, split: &str) -> Result<PathBuf, DataError> {
    Ok(DatasetFiles::find(path, split)?.path)
}

/// The files of `split` under all `paths` that `pattern` stands for.
fn several(pattern: &Path, split: &str, paths: Vec<PathBuf>) -> Result<DatasetFiles, DataError> {
    let mut missing = paths.iter().filter(|path| !path.exists());
    if let Some(first) = missing.next() {
        let (missing, all) = (1 + missing.count(), paths.len());
        let problem = format!(
            "does not exist; {missing} of the {all} files of '{}' are missing: download them, or correct data.path",
            pattern.display()
        );
        return Err(DataError::contents(first, problem));
    }
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.extend(DatasetFiles::find(&path, split)?.files);
    }
    Ok(DatasetFiles { path: pattern.to_path_buf(), files })
}

/// Opens a file by its kind, which its name tells; what has no other kind is JSON.
fn open(file: &Arc<Path>, images: Option<&Arc<Path>>) -> Result<Records, DataError> {
    let name = file.to_string_lossy().to_ascii_lowercase();
    if shards::is_compressed(&name) {
        return Err(shards::unpack(file));
    }
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    Ok(match extension.as_str() {
        "parquet" => Box::new(parquet::ParquetReader::open(file, images)?),
        "tar" => Box::new(tar::TarReader::open(file, images)?),
        "csv" | "tsv" | "xlsx" | "arrow" => {
            let problem = format!(
                "is a .{extension} file, which is not read; write one JSON object a line (.jsonl), or Parquet"
            );
            return Err(DataError::contents(file, problem));
        }
        _ => Box::new(json::JsonReader::open(file, images)?),
    })
}

/// The picture `name` that lies in a file of its own: named from `images`, else from the folder of `file`, by the
/// record at `place`.
fn picture_file(file: &Arc<Path>, images: Option<&Path>, place: &Place, name: &str) -> PictureRef {
    let folder = images.or_else(|| file.parent()).unwrap_or(Path::new(""));
    let origin = Origin { file: Arc::clone(file), place: place.clone() };
    PictureRef::from_source(Source::File(folder.join(name)), Some(origin))
}
