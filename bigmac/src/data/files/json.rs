//! Reading data sets record by record: JSON Lines, or a JSON array as LLaVA's files are.

use super::super::error::{DataError, Place};
use super::super::forms::{self, RawRecord, Record, kind};
use super::picture_file;
use super::text::{NOT_UTF8, json, not_json, not_text, without_bom};
use bigmac_runtime::open::{open_file, read_file};
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::{Deserializer, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// Reads a data set's file record by record; an error of one record does not end it, so that all can be listed.
pub(super) struct JsonReader {
    file: Arc<Path>,
    images: Option<Arc<Path>>,
    values: Values,
}

enum Values {
    /// The lines that are read, and whether any but blank ones are among them.
    Lines {
        reader: BufReader<File>,
        line: u32,
        begun: bool,
    },
    /// The text of a JSON array, what of it is read (bytes), the lines in that, and whether a comma comes before it.
    Array {
        text: String,
        at: usize,
        line: u32,
        comma: bool,
    },
    Done,
}

/// A record's line and what stands there.
type Item = Result<(u32, Value), DataError>;

impl JsonReader {
    /// Opens a file of JSON Lines, or of one JSON array (told apart by the first character).
    ///
    /// # Errors
    /// When the file cannot be read, or is not text.
    pub fn open(file: &Arc<Path>, images: Option<&Arc<Path>>) -> Result<Self, DataError> {
        let mut reader = BufReader::new(open_file(file).map_err(DataError::read(file))?);
        let head = reader.fill_buf().map_err(DataError::read(file))?;
        if let Some(problem) = not_text(head) {
            return Err(DataError::contents(file, problem));
        }
        let bom = head.len() - without_bom(head).len();
        reader.consume(bom);
        let line = skip_blank(&mut reader).map_err(DataError::read(file))?;
        let first = reader.fill_buf().map_err(DataError::read(file))?.first().copied();
        let values = if first == Some(b'[') {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_err(DataError::read(file))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let right = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                DataError::broken(file, Place::Line(1 + line + newlines(right)), NOT_UTF8.into())
            })?;
            Values::Array { text, at: 1, line: 1 + line, comma: false }
        } else {
            Values::Lines { reader, line, begun: false }
        };
        Ok(JsonReader { file: Arc::clone(file), images: images.cloned(), values })
    }

    /// The next line's number and value; blank lines are passed over.
    fn next_value(&mut self) -> Option<Item> {
        let item = match &mut self.values {
            Values::Lines { reader, line, begun } => next_line(&self.file, reader, line, begun),
            Values::Array { text, at, line, comma } => next_element(&self.file, text, at, line, comma),
            Values::Done => None,
        };
        if matches!(item, None | Some(Err(DataError::Read { .. } | DataError::Broken { .. }))) {
            self.values = Values::Done;
        }
        item
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

/// The longest line that is read, in bytes. A file of another kind may be one line of any length, which memory need not
/// hold.
const LONGEST_LINE: u64 = 256 << 20;

/// Passes over white space; the newlines in it.
fn skip_blank(reader: &mut impl BufRead) -> std::io::Result<u32> {
    let mut lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let blank = buffer.len() - buffer.trim_ascii_start().len();
        let more = blank > 0 && blank == buffer.len();
        lines += newlines(&buffer[..blank]);
        reader.consume(blank);
        if !more {
            return Ok(lines);
        }
    }
}

fn next_line(file: &Path, reader: &mut BufReader<File>, line: &mut u32, begun: &mut bool) -> Option<Item> {
    let mut bytes = Vec::new();
    let text = loop {
        bytes.clear();
        match reader.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => *line += 1,
            Err(error) => return Some(Err(DataError::read(file)(error))),
        }
        if bytes.len() as u64 > LONGEST_LINE {
            let problem = format!("longer than {} MiB; is it a file of another kind?", LONGEST_LINE >> 20);
            return Some(Err(DataError::broken(file, Place::Line(*line), problem)));
        }
        // Files that were joined have a mark in the middle.
        let text = without_bom(&bytes);
        if !text.trim_ascii().is_empty() {
            break text;
        }
    };
    let number = *line;
    let first = !std::mem::replace(begun, true);
    let Ok(text) = std::str::from_utf8(text) else {
        return Some(Err(DataError::line(file, number, NOT_UTF8.into())));
    };
    let problem = match json(text) {
        Ok(value) => return Some(Ok((number, value))),
        Err(problem) => problem,
    };
    if first && is_begun(text) {
        match spread_object(file) {
            Ok(None) => {}
            Ok(Some(problem)) => return Some(Err(DataError::broken(file, Place::Line(number), problem))),
            Err(error) => return Some(Err(DataError::read(file)(error))),
        }
    }
    Some(Err(DataError::line(file, number, problem)))
}

/// Whether a text is the beginning of a JSON value that goes on after its end.
fn is_begun(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.classify() == Category::Eof)
}

/// What to say of a file that begins with an object over several lines; `None` when it does not.
fn spread_object(file: &Path) -> std::io::Result<Option<String>> {
    let bytes = read_file(file)?;
    let Ok(text) = std::str::from_utf8(without_bom(&bytes)) else { return Ok(None) };
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    let Some(Ok(Value::Object(object))) = values.next() else { return Ok(None) };
    let lists: Vec<&String> = object
        .iter()
        .filter(|(_, value)| value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_object)))
        .map(|(key, _)| key)
        .collect();
    let is_chat = lists.iter().any(|key| ["conversations", "messages"].contains(&key.as_str()));
    let wanted = "an object over several lines; expected a list of records ([...]), or one record a line";
    Ok(Some(match lists.as_slice() {
        [only] if !is_chat => {
            format!(
                "{wanted}; its key '{only}' holds a list of objects: if those are the records, save that list alone"
            )
        }
        _ => wanted.to_owned(),
    }))
}

fn next_element(file: &Path, text: &str, at: &mut usize, line: &mut u32, comma: &mut bool) -> Option<Item> {
    let broken =
        |line, problem: &str| Some(Err(DataError::broken(file, Place::Line(line), not_json(problem))));
    let skip = |at: &mut usize, line: &mut u32| {
        let rest = &text.as_bytes()[*at..];
        let blank = rest.len() - rest.trim_ascii_start().len();
        *line += newlines(&rest[..blank]);
        *at += blank;
    };
    skip(at, line);
    if text[*at..].starts_with(']') {
        if *comma {
            return broken(*line, "a comma before the end of the array, where an element is expected");
        }
        *at += 1;
        skip(at, line);
        if *at == text.len() {
            return None;
        }
        return broken(*line, "more after the end of the array; a file holds one array");
    }
    let begins = *line;
    // The element's extent first: what is wrong inside it does not end the array.
    let mut elements = Deserializer::from_str(&text[*at..]).into_iter::<IgnoredAny>();
    match elements.next() {
        Some(Ok(_)) => {}
        Some(Err(error)) => {
            // serde_json counts lines from where it began to read.
            let problem = error.to_string();
            let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
            return broken(begins + (error.line() as u32).saturating_sub(1), problem);
        }
        None => return broken(begins, UNCLOSED),
    }
    let element = &text[*at..*at + elements.byte_offset()];
    *line += newlines(element.as_bytes());
    *at += element.len();
    skip(at, line);
    *comma = text[*at..].starts_with(',');
    if *comma {
        *at += 1;
    } else if !text[*at..].starts_with(']') {
        return broken(*line, UNCLOSED);
    }
    Some(match json(element) {
        Ok(value) => Ok((begins, value)),
        Err(problem) => Err(DataError::line(file, begins, problem)),
    })
}

const UNCLOSED: &str = "the array is not closed, or a comma is missing between elements";

fn newlines(text: &[u8]) -> u32 {
    text.iter().filter(|&&b| b == b'\n').count() as u32
}
