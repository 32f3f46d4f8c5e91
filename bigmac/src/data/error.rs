//! What can go wrong with a data set, said with file, line and what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of reading, writing or planning data.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}; check the free space and the folder's permissions", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder does not show which file is the data set.
    #[error(
        "{} has no {wanted}{}; give the data set's file itself, or write one with `bigmac data shapes --out DIR`",
        folder.display(), listed(found)
    )]
    NoDataset {
        /// The folder.
        folder: PathBuf,
        /// The names looked for.
        wanted: String,
        /// The JSON and JSONL files that are there.
        found: Vec<String>,
    },
    /// A folder in which `bigmac data shapes` was interrupted.
    #[error(
        "{} holds a data set whose writing was interrupted or still goes on; run `bigmac data shapes --out` on it \
         again with the same --samples and --seed", folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder that a data set cannot be written to, as it holds something else.
    #[error("{} holds {holds}; choose another --out; --overwrite replaces a shapes set, and nothing else", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// A file without a single sample.
    #[error("{} holds no sample; every line should be one, such as {{\"text\": \"<image>a cat\", \"images\": [\"cat.png\"]}}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// One line (or one element of a JSON array, by the line it begins on) is wrong.
    #[error("{}:{line}: {problem}", file.display())]
    Line {
        /// The data set's file.
        file: PathBuf,
        /// Counted from 1.
        line: u32,
        /// What is wrong.
        problem: Box<LineProblem>,
    },
    /// A picture that no line of a data set names is wrong.
    #[error("picture {}: {problem}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// What is wrong.
        problem: PictureProblem,
    },
    /// A number of pixels that is not that of a picture of the size given.
    #[error("{given} values are not a picture of 3 x {height} x {width}; give {} values, channel by channel", 3 * height * width)]
    PixelCount {
        /// Values given.
        given: usize,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
    },
    /// A `tokenizer.json` could not be used.
    #[error("tokenizer {}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Settings of the batch that cannot be met.
    #[error("{0}")]
    Batch(String),
}

/// What is wrong with one line of a data set.
#[derive(Debug, Error)]
pub enum LineProblem {
    /// Not JSON.
    #[error(
        "not JSON ({0}); every line is one object, such as {{\"text\": \"<image>a cat\", \"images\": [\"cat.png\"]}}"
    )]
    Json(serde_json::Error),
    /// Bytes that are not UTF-8.
    #[error("not UTF-8 text; save the file as UTF-8")]
    Encoding,
    /// JSON, but not an object.
    #[error("{found}, where an object such as {{\"text\": ..., \"images\": [...]}} is wanted")]
    NotAnObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}`{}; known are text, images, draw, prompt and id", did_you_mean(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// A known key that looks like it.
        nearest: Option<&'static str>,
    },
    /// A key whose value has the wrong type.
    #[error("`{key}` is {found}, where {wanted} is wanted")]
    WrongType {
        /// The key.
        key: String,
        /// The type wanted.
        wanted: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// The `<image>` marks are not as many as the images.
    #[error(
        "{marks} <image> marks, but {images} images; write one mark per image, or none to have the images come first"
    )]
    MarkCount {
        /// Marks in `prompt` and `text`, or in the human turns.
        marks: usize,
        /// Images listed.
        images: usize,
    },
    /// A mark in a place where it cannot be.
    #[error("{mark} in {place}; {advice}")]
    MisplacedMark {
        /// The mark.
        mark: &'static str,
        /// Where.
        place: String,
        /// What to do.
        advice: &'static str,
    },
    /// Nothing in the line carries loss.
    #[error("nothing to learn: no text and no picture to draw; give `text`, `draw` or both")]
    NothingToLearn,
    /// A turn of a conversation that cannot be read.
    #[error("turn {turn} of `conversations`: {problem}")]
    Turn {
        /// Counted from 1.
        turn: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Longer than a microbatch.
    #[error(
        "{tokens} tokens ({picture_tokens} of them for pictures), but a microbatch holds {limit}; shorten the text, \
         or raise tokens_per_microbatch"
    )]
    TooLong {
        /// Tokens of the sample.
        tokens: usize,
        /// Tokens that stand for picture tiles.
        picture_tokens: usize,
        /// The most a microbatch may hold.
        limit: usize,
    },
    /// A text the tokenizer refused.
    #[error("the tokenizer refused the text: {0}")]
    Tokenizer(String),
    /// A picture that the line names is wrong.
    #[error("picture {}: {problem}", path.display())]
    Picture {
        /// The picture, as it was looked for.
        path: PathBuf,
        /// What is wrong.
        problem: PictureProblem,
    },
}

/// What is wrong with a picture.
#[derive(Debug, Error)]
pub enum PictureProblem {
    /// Not there.
    #[error("no such file; paths are taken from the folder of the data set's file")]
    Missing,
    /// There, but not readable.
    #[error("cannot be read ({0})")]
    Io(io::Error),
    /// Neither PNG nor JPEG, damaged, or cut short.
    #[error(
        "cannot be decoded ({0}); PNG and JPEG are read: is the file damaged, cut short or of another kind?"
    )]
    Decode(image::ImageError),
    /// A JPEG without its end.
    #[error("is cut short: the end of the JPEG is missing; copy or download it again")]
    CutShort,
    /// Without pixels.
    #[error("has no pixels")]
    Blank,
}

impl DataError {
    pub(crate) fn line(file: &Path, line: u32, problem: LineProblem) -> Self {
        DataError::Line { file: file.to_path_buf(), line, problem: Box::new(problem) }
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
        if error.kind() == io::ErrorKind::NotFound {
            PictureProblem::Missing
        } else {
            PictureProblem::Io(error)
        }
    }
}

impl From<image::ImageError> for PictureProblem {
    fn from(error: image::ImageError) -> Self {
        match error {
            image::ImageError::IoError(error) if error.kind() == io::ErrorKind::NotFound => {
                PictureProblem::Missing
            }
            other => PictureProblem::Decode(other),
        }
    }
}

fn did_you_mean(nearest: &Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

fn listed(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" (it has {})", found.join(", ")) }
}
