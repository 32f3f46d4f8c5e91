//! What can go wrong with a data set, said with file, line and what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

/// An error of reading, writing or planning data.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}; check the free space and the folder's permissions", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A folder does not show which file is the data set: none of the `wanted` name, but the JSON and JSONL files
    /// `found`.
    #[error(
        "{} has no {wanted}{}; give the data set's file itself, or write one with `bigmac data shapes --out DIR`",
        folder.display(), listed(found)
    )]
    NoDataset { folder: PathBuf, wanted: String, found: Vec<String> },
    /// A file or folder whose contents cannot be used.
    #[error("{} {problem}", path.display())]
    Contents { path: PathBuf, problem: String },
    /// One record is wrong.
    #[error("{}:{place}: {problem}", file.display())]
    Record { file: PathBuf, place: Place, problem: String },
    /// A record is wrong in a way that hides those after it: the rest of the file is not read.
    #[error("{}:{place}: {problem}", file.display())]
    Broken { file: PathBuf, place: Place, problem: String },
    /// A picture that no record of a data set names is wrong.
    #[error("picture {name}: {problem}")]
    Picture { name: String, problem: PictureProblem },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] bigmac_runtime::Error),
    /// Settings or values that do not fit.
    #[error("{0}")]
    Value(String),
}

/// Where a file holds a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line of a text file that it begins on, from 1.
    Line(u32),
    /// The row of a table, from 1.
    Row(u32),
    /// A sample of a tar shard: which, from 1, and its key.
    Sample(u32, Arc<str>),
}

impl Place {
    /// The line, the row, or which sample of its shard; from 1.
    pub fn number(&self) -> u32 {
        match self {
            Place::Line(number) | Place::Row(number) | Place::Sample(number, _) => *number,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "{line}"),
            Place::Row(row) => write!(f, " row {row}"),
            Place::Sample(_, key) => write!(f, " sample {key}"),
        }
    }
}

/// What is wrong with a picture, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PictureProblem(pub(super) String);

const NO_SUCH_FILE: &str = "no such file";

impl PictureProblem {
    /// The same of a picture that a record names, where paths are taken from.
    pub(super) fn of_record(self) -> Self {
        match self.0.as_str() {
            NO_SUCH_FILE => PictureProblem(format!(
                "{NO_SUCH_FILE}; paths are taken from data.images, where set, else from the folder of the data set's file"
            )),
            _ => self,
        }
    }
}

impl DataError {
    pub(crate) fn at(file: &Path, place: Place, problem: String) -> Self {
        DataError::Record { file: file.to_path_buf(), place, problem }
    }

    pub(crate) fn line(file: &Path, line: u32, problem: String) -> Self {
        DataError::at(file, Place::Line(line), problem)
    }

    pub(crate) fn broken(file: &Path, place: Place, problem: String) -> Self {
        DataError::Broken { file: file.to_path_buf(), place, problem }
    }

    pub(crate) fn contents(path: &Path, problem: impl Into<String>) -> Self {
        DataError::Contents { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn no_sample(file: &Path) -> Self {
        let problem = "holds no sample; every line should be one, such as {\"text\": \"<image>a cat\", \"images\": \
                       [\"cat.png\"]}";
        DataError::contents(file, problem)
    }

    pub(crate) fn none_left(file: &Path, wrong: usize, first: &str) -> Self {
        let problem = format!("holds no sample that can be used: {wrong} are wrong; the first: {first}");
        DataError::contents(file, problem)
    }

    pub(crate) fn pixel_count(given: usize, width: usize, height: usize) -> Self {
        let values = 3 * height * width;
        DataError::Value(format!(
            "{given} values are not a picture of 3 x {height} x {width}; give {values} values, channel by channel"
        ))
    }

    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        move |source| DataError::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        move |source| DataError::Write { path: path.to_path_buf(), source }
    }
}

impl From<io::Error> for PictureProblem {
    fn from(error: io::Error) -> Self {
        PictureProblem(match error.kind() {
            io::ErrorKind::NotFound => NO_SUCH_FILE.into(),
            _ => format!("cannot be read ({error})"),
        })
    }
}

impl From<image::ImageError> for PictureProblem {
    fn from(error: image::ImageError) -> Self {
        match error {
            image::ImageError::IoError(error) if error.kind() == io::ErrorKind::NotFound => error.into(),
            other => PictureProblem(format!(
                "cannot be decoded ({other}); PNG, JPEG, WebP and GIF are read: is the file damaged, cut short or of another kind?"
            )),
        }
    }
}

fn listed(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" (it has {})", found.join(", ")) }
}
