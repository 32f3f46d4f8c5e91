//! What one record of a data set says: texts, marks and pictures, before any token. Each form that people write records
//! in is a file here.

mod conversations;
mod own;

use super::error::Place;
use super::picture::PictureRef;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// Where an image goes in a text.
pub const IMAGE_MARK: &str = "<image>";
/// Ends a text from which a picture is to be drawn. Written by the reader, not in data sets.
pub const DRAW_MARK: &str = "<draw>";

/// A stretch of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Text without marks.
    Text {
        /// The text.
        text: String,
        /// Whether it carries loss.
        learned: bool,
    },
    /// The next of the record's images.
    Image,
    /// End of a text.
    End,
    /// The `<draw>` mark; from everything before it the generator draws.
    Draw,
}

/// What one line of a data set says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In order; `<bos>` comes before the first.
    pub segments: Vec<Segment>,
    /// In the order of the `Segment::Image`s, and as many.
    pub images: Vec<PictureRef>,
    /// The picture that the generator learns to draw.
    pub draw: Option<PictureRef>,
    /// The data set's file.
    pub file: Arc<Path>,
    /// Where that file holds it.
    pub place: Place,
}

/// A record as its file holds it, before its form is known.
pub(super) struct RawRecord {
    /// Its keys and values.
    pub object: Map<String, Value>,
    /// Pictures to be read that the file itself holds for it, in order; empty for a file that names pictures.
    pub images: Vec<PictureRef>,
    /// The picture to be drawn, where the file itself holds it.
    pub draw: Option<PictureRef>,
    /// The file.
    pub file: Arc<Path>,
    /// Where it is in the file.
    pub place: Place,
}

/// Reads a record of any form; `named` finds the picture that a text in it names.
///
/// # Errors
/// What is wrong with the record, without its place.
pub(super) fn read(
    raw: RawRecord,
    named: &dyn Fn(&str) -> Result<PictureRef, String>,
) -> Result<Record, String> {
    if raw.object.contains_key("conversations") {
        conversations::record(&raw, named)
    } else {
        own::record(&raw, named)
    }
}

/// Cuts texts at their `<image>` marks. Without any mark, the images come first.
fn with_images(texts: &[(&str, bool)], images: usize) -> Result<Vec<Segment>, String> {
    let marks: usize = texts.iter().map(|(text, _)| text.matches(IMAGE_MARK).count()).sum();
    if marks != images && marks != 0 {
        return Err(format!(
            "{marks} {IMAGE_MARK} marks, but {images} images; write one mark per image, or none to have the images come first"
        ));
    }
    let mut segments = vec![Segment::Image; images - marks];
    for &(text, learned) in texts {
        for (i, part) in text.split(IMAGE_MARK).enumerate() {
            if i > 0 {
                segments.push(Segment::Image);
            }
            if !part.is_empty() {
                segments.push(Segment::Text { text: part.to_owned(), learned });
            }
        }
    }
    Ok(segments)
}

/// The string under `key`; `None` when the key is missing or null.
fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(key, kind(other), "a string")),
    }
}

/// The strings under `key`: a list, or one alone; empty when the key is missing or null.
fn strings<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a str>, String> {
    let wrong = |found| wrong_type(key, found, "a list of paths");
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                item.as_str().ok_or_else(|| {
                    wrong(match kind(item) {
                        "a string" => "a list",
                        _ => "a list with something other than strings",
                    })
                })
            })
            .collect(),
        Some(other) => Err(wrong(kind(other))),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong_type(key: &str, found: &str, wanted: &str) -> String {
    format!("'{key}' is {found}, expected {wanted}")
}

fn nothing_to_learn() -> String {
    "nothing to learn: no text and no picture to draw; give 'text', 'draw' or both".into()
}
