//! Reading data sets record by record: JSON Lines, or a JSON array as LLaVA's files are.

use super::super::error::{DataError, Place};
use super::super::forms::{self, RawRecord, Record, kind};
use super::picture_file;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// Reads a data set's file record by record; an error of one line does not end it, so that all can be listed.
pub(super) struct JsonReader {
    file: Arc<Path>,
    images: Option<Arc<Path>>,
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

impl JsonReader {
    /// Opens a file of JSON Lines, or of one JSON array (told apart by the first character).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(file: &Arc<Path>, images: Option<&Arc<Path>>) -> Result<Self, DataError> {
        let path = file.as_ref();
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
        Ok(JsonReader { file: Arc::clone(file), images: images.cloned(), values })
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

    /// A line's JSON value as a record; pictures are files of their own.
    fn record(&self, value: Value, line: u32) -> Result<Record, String> {
        let Value::Object(object) = value else {
            let found = kind(&value);
            return Err(format!(
                "{found}, where an object such as {{\"text\": ..., \"images\": [...]}} is expected"
            ));
        };
        let place = Place::Line(line);
        let named =
            |name: &str| Ok(picture_file(&self.file, self.images.as_deref(), &Place::Line(line), name));
        let file = Arc::clone(&self.file);
        forms::read(RawRecord { object, images: Vec::new(), draw: None, file, place }, &named)
    }
}

impl Iterator for JsonReader {
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
