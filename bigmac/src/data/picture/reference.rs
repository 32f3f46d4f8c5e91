//! References to pictures: where the bytes are, and which record names them.

use super::super::error::{DataError, PictureProblem, Place};
use super::super::table::Cell;
use bigmac_runtime::open::{open_file, read_file, zeros};
use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A picture that has not been read yet, and the record that names it (for errors). Cheap to clone.
#[derive(Clone, Debug)]
pub struct PictureRef(Arc<Named>);

#[derive(Debug)]
struct Named {
    source: Source,
    origin: Option<Origin>,
}

/// Where a picture's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::data) enum Source {
    /// A file of its own.
    File(PathBuf),
    /// A stretch of a file, such as a member of a tar shard.
    Within {
        /// The file.
        file: Arc<Path>,
        /// Where the picture begins in it, in bytes.
        offset: u64,
        /// Its encoded bytes.
        len: u64,
        /// Its name in the file.
        name: Arc<str>,
    },
    /// A cell of a Parquet table.
    Cell(Cell),
}

/// The record that names a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::data) struct Origin {
    /// The data set's file.
    pub file: Arc<Path>,
    /// Where in it.
    pub place: Place,
}

impl PictureRef {
    /// A picture that no data set names, such as one given on the command line.
    pub fn new(path: &Path) -> Self {
        PictureRef::from_source(Source::File(path.to_path_buf()), None)
    }

    pub(in crate::data) fn from_source(source: Source, origin: Option<Origin>) -> Self {
        PictureRef(Arc::new(Named { source, origin }))
    }

    /// The file that the picture is, when it is one of its own.
    pub fn path(&self) -> Option<&Path> {
        match &self.0.source {
            Source::File(path) => Some(path),
            Source::Within { .. } | Source::Cell(_) => None,
        }
    }

    /// Where it is, which its name alone does not say of a member of an archive: the same in every process that reads
    /// the same files.
    pub(crate) fn place(&self) -> String {
        match &self.0.source {
            Source::File(path) => path.display().to_string(),
            Source::Within { file, offset, .. } => format!("{}, byte {offset}", file.display()),
            Source::Cell(cell) => cell.place(),
        }
    }

    /// Checks that the picture is there, without reading it.
    ///
    /// # Errors
    /// When it is missing or is not a file; names the record.
    pub fn check(&self) -> Result<(), DataError> {
        // What lies within a file was found there when that was opened.
        let Source::File(path) = &self.0.source else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(self.error(std::io::Error::other("not a file").into())),
            Err(error) => Err(self.error(error.into())),
        }
    }

    /// The encoded bytes.
    pub(in crate::data) fn bytes(&self) -> std::io::Result<Vec<u8>> {
        match &self.0.source {
            Source::File(path) => read_file(path),
            Source::Within { file, offset, len, .. } => {
                let len = usize::try_from(*len).map_err(std::io::Error::other)?;
                let mut bytes = zeros(len)?;
                std::fs::File::open(file)?.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
            Source::Cell(cell) => cell.read(),
        }
    }

    /// The first `most` of the encoded bytes, or all where there are fewer.
    pub(super) fn head(&self, most: u64) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        match &self.0.source {
            Source::File(path) => open_file(path)?.take(most).read_to_end(&mut head)?,
            Source::Within { file, offset, len, .. } => {
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(*offset))?;
                file.take(most.min(*len)).read_to_end(&mut head)?
            }
            // A cell is read as a whole.
            Source::Cell(_) => return self.bytes(),
        };
        Ok(head)
    }

    /// How many encoded bytes there are; none where that is known only after reading them.
    pub(in crate::data) fn encoded_len(&self) -> std::io::Result<Option<u64>> {
        match &self.0.source {
            Source::File(path) => Ok(Some(std::fs::metadata(path)?.len())),
            Source::Within { len, .. } => Ok(Some(*len)),
            Source::Cell(_) => Ok(None),
        }
    }

    /// An error about this picture.
    pub(in crate::data) fn error(&self, problem: PictureProblem) -> DataError {
        match &self.0.origin {
            Some(Origin { file, place }) => {
                DataError::at(file, place.clone(), format!("picture {self}: {}", problem.of_record()))
            }
            None => DataError::Picture { name: self.to_string(), problem },
        }
    }
}

/// Two references are equal where they are to the same picture, whichever records name it.
impl PartialEq for PictureRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.source == other.0.source
    }
}

impl Eq for PictureRef {}

impl Hash for PictureRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.source.hash(state);
    }
}

/// The name for people: the path of a file, or what it is called in the file that holds it.
impl fmt::Display for PictureRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.source {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Within { name, .. } => write!(f, "{name}"),
            Source::Cell(cell) => write!(f, "{}", cell.name),
        }
    }
}
