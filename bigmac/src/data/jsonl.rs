//! Reading data sets record by record: JSON Lines, or a JSON array as LLaVA's files are.

use super::error::DataError;
use super::llava;
use super::picture::PictureRef;
use super::record::{self, Record, kind};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File in a folder while a data set is being written to it.
pub(super) const WRITING_MARK: &str = ".writing";
/// Description of a data set that `bigmac data shapes` wrote; no data set itself.
pub(super) const DESCRIPTION: &str = "dataset.json";

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

/// Reads a data set's file record by record; an error of one line does not end it, so that all can be listed.
pub struct RecordReader {
    file: Arc<Path>,
    folder: PathBuf,
    values: Values,
}

enum Values {
    Lines {
        reader: BufReader<File>,
        line: u32,
    },
    /// The text of a JSON array, what of it is read (bytes), and the lines in that.
    Array {
        text: String,
        at: usize,
        line: u32,
    },
    Done,
}

impl RecordReader {
    /// Opens a file of JSON Lines, or of one JSON array (told apart by the first character).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let mut reader = BufReader::new(File::open(path).map_err(DataError::read(path))?);
        let first = reader.fill_buf().map_err(DataError::read(path))?.trim_ascii_start().first().copied();
        let values = if first == Some(b'[') {
            let mut text = String::new();
            reader.read_to_string(&mut text).map_err(DataError::read(path))?;
            let start = text.len() - text.trim_start().len();
            let line = 1 + newlines(&text[..start]);
            Values::Array { text, at: start + 1, line }
        } else {
            Values::Lines { reader, line: 0 }
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(RecordReader { file: path.into(), folder, values })
    }

    /// The file that is read.
    pub fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// The next line's number and value; blank lines are passed over.
    fn next_value(&mut self) -> Option<Result<(u32, Value), DataError>> {
        match &mut self.values {
            Values::Lines { reader, line } => {
                let mut bytes = Vec::new();
                loop {
                    bytes.clear();
                    match reader.read_until(b'\n', &mut bytes) {
                        Ok(0) => return None,
                        Ok(_) => *line += 1,
                        Err(error) => {
                            self.values = Values::Done;
                            return Some(Err(DataError::read(&self.file)(error)));
                        }
                    }
                    if !bytes.trim_ascii().is_empty() {
                        break;
                    }
                }
                let number = *line;
                let parsed = match std::str::from_utf8(&bytes) {
                    Err(_) => Err("not UTF-8 text; save the file as UTF-8".to_owned()),
                    Ok(text) => serde_json::from_str(text).map_err(not_json),
                };
                Some(parsed.map(|value| (number, value)).map_err(|p| DataError::line(&self.file, number, p)))
            }
            Values::Array { text, at, line } => {
                let skip = |at: &mut usize, line: &mut u32| {
                    let rest = &text[*at..];
                    let blank = rest.len() - rest.trim_start().len();
                    *line += newlines(&rest[..blank]);
                    *at += blank;
                };
                skip(at, line);
                if text[*at..].starts_with(']') {
                    self.values = Values::Done;
                    return None;
                }
                let begins = *line;
                let mut stream = serde_json::Deserializer::from_str(&text[*at..]).into_iter::<Value>();
                let value = match stream.next() {
                    Some(Ok(value)) => value,
                    Some(Err(error)) => {
                        return Some(Err(self.end_of_array(begins, not_json(error))));
                    }
                    None => return Some(Err(self.end_of_array(begins, unclosed()))),
                };
                let read = stream.byte_offset();
                *line += newlines(&text[*at..*at + read]);
                *at += read;
                skip(at, line);
                if text[*at..].starts_with(',') {
                    *at += 1;
                } else if !text[*at..].starts_with(']') {
                    let here = *line;
                    return Some(Err(self.end_of_array(here, unclosed())));
                }
                Some(Ok((begins, value)))
            }
            Values::Done => None,
        }
    }

    /// After a syntax error in an array no element's beginning is known: reading ends.
    fn end_of_array(&mut self, line: u32, problem: String) -> DataError {
        self.values = Values::Done;
        DataError::line(&self.file, line, problem)
    }

    /// A line's JSON value, in BigMac's own form or LLaVA's; pictures are taken from the file's folder.
    fn record(&self, value: Value, line: u32) -> Result<Record, String> {
        let Value::Object(object) = value else {
            let found = kind(&value);
            return Err(format!(
                "{found}, where an object such as {{\"text\": ..., \"images\": [...]}} is expected"
            ));
        };
        let picture = |name: &str| PictureRef::named_by(&self.folder.join(name), &self.file, line);
        if object.contains_key("conversations") {
            llava::record(&object, picture, line)
        } else {
            record::record(&object, picture, line)
        }
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, value) = match self.next_value()? {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        Some(self.record(value, line).map_err(|problem| DataError::line(&self.file, line, problem)))
    }
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|&b| b == b'\n').count() as u32
}

fn unclosed() -> String {
    not_json("the array is not closed, or a comma is missing between elements")
}

fn not_json(error: impl std::fmt::Display) -> String {
    format!(
        "not JSON ({error}); every line is one object, such as {{\"text\": \"<image>a cat\", \"images\": [\"cat.png\"]}}"
    )
}
