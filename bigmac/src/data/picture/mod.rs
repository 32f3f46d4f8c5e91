//! Pictures: where they lie, how they are decoded, resized and cut, and pixels in [-1, 1].

mod decode;
mod pixels;
mod tile;

pub use decode::decode;
pub use pixels::{pixels_to_rgb, rgb_to_pixels, write_png};
pub use tile::{Tile, Tiling, load_square, load_tile};

use super::error::{DataError, PictureProblem, Place};
use super::files::Cell;
use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A picture that has not been read yet, and the record that names it (for errors). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureRef(Arc<Named>);

#[derive(Debug, PartialEq, Eq)]
struct Named {
    source: Source,
    origin: Option<Origin>,
}

/// What a picture may take to decode, checked against its header before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLimits {
    /// Most pixels.
    pub pixels: u64,
    /// Most bytes of memory.
    pub bytes: u64,
}

/// The pixels above which Pillow warns of a decompression bomb, twice, and 512 MiB.
impl Default for PictureLimits {
    fn default() -> Self {
        PictureLimits { pixels: 178_956_970, bytes: 512 << 20 }
    }
}

/// Where a picture's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
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
pub(super) struct Origin {
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

    pub(super) fn from_source(source: Source, origin: Option<Origin>) -> Self {
        PictureRef(Arc::new(Named { source, origin }))
    }

    /// The file that the picture is, when it is one of its own.
    pub fn path(&self) -> Option<&Path> {
        match &self.0.source {
            Source::File(path) => Some(path),
            Source::Within { .. } | Source::Cell(_) => None,
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
    pub(super) fn bytes(&self) -> std::io::Result<Vec<u8>> {
        match &self.0.source {
            Source::File(path) => std::fs::read(path),
            Source::Within { file, offset, len, .. } => {
                let len = usize::try_from(*len).map_err(std::io::Error::other)?;
                let mut bytes = vec![0; len];
                std::fs::File::open(file)?.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
            Source::Cell(cell) => cell.read(),
        }
    }

    /// An error about this picture.
    pub(super) fn error(&self, problem: PictureProblem) -> DataError {
        match &self.0.origin {
            Some(Origin { file, place }) => {
                DataError::at(file, place.clone(), format!("picture {self}: {problem}"))
            }
            None => DataError::Picture { name: self.to_string(), problem },
        }
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
