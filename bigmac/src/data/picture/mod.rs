//! Pictures: where they lie, how they are decoded, resized and cut, and pixels in [-1, 1].

mod decode;
mod load;
mod pixels;
mod tile;

pub(in crate::data) use decode::Encoded;
pub use decode::decode;
pub(in crate::data) use load::load_squares;
pub use load::{decoding_cost, load_square, load_tile};
pub use pixels::{pixels_to_rgb, rgb_to_pixels, write_png};
pub(in crate::data) use tile::cut;
pub use tile::{Square, Tile, Tiling};

use super::error::{DataError, PictureProblem, Place};
use crate::config::Data;
use std::fmt;
use std::fs::File;
use std::io::Read;
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

impl PictureLimits {
    /// Those of a configuration.
    pub fn of(data: &Data) -> Self {
        PictureLimits { pixels: data.max_pixels, bytes: data.prefetch.0 }
    }
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
        }
    }

    /// Tells this reference and its clones from all others.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Checks that the picture is there, without reading it.
    ///
    /// # Errors
    /// When it is missing or is not a file; names the record.
    pub fn check(&self) -> Result<(), DataError> {
        let Source::File(path) = &self.0.source;
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(self.error(std::io::Error::other("not a file").into())),
            Err(error) => Err(self.error(error.into())),
        }
    }

    /// The encoded bytes.
    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        match &self.0.source {
            Source::File(path) => std::fs::read(path),
        }
    }

    /// The first `most` of the encoded bytes, or all where there are fewer.
    fn head(&self, most: u64) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        match &self.0.source {
            Source::File(path) => File::open(path)?.take(most).read_to_end(&mut head)?,
        };
        Ok(head)
    }

    /// How many encoded bytes there are; none where that is known only after reading them.
    pub(super) fn encoded_len(&self) -> std::io::Result<Option<u64>> {
        match &self.0.source {
            Source::File(path) => Ok(Some(std::fs::metadata(path)?.len())),
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

/// The name for people: the path of a file.
impl fmt::Display for PictureRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.source {
            Source::File(path) => write!(f, "{}", path.display()),
        }
    }
}
