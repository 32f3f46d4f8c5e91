//! What one line of a data set says: texts, marks and pictures, before any token.

use super::picture::PictureRef;
use bigmac_schedule::names;
use serde_json::{Map, Value};

/// Where an image goes in a text.
pub const IMAGE_MARK: &str = "<image>";
/// Ends a text from which a picture is to be drawn. Written by the reader, not in data sets.
pub const DRAW_MARK: &str = "<draw>";

const KEYS: [&str; 5] = ["text", "images", "draw", "prompt", "id"];

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
    /// Line of the data set's file, from 1 (0 for a record made by hand).
    pub line: u32,
}

/// Reads a line of BigMac's own form.
pub(super) fn record(
    object: &Map<String, Value>,
    picture: impl Fn(&str) -> PictureRef,
    line: u32,
) -> Result<Record, String> {
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let hint = names::hint(names::nearest(key, KEYS));
        return Err(format!("'{key}' is not a valid key{hint}; known are text, images, draw, prompt and id"));
    }
    let prompt = string(object, "prompt")?.unwrap_or("");
    let text = string(object, "text")?.unwrap_or("");
    let images: Vec<PictureRef> = strings(object, "images")?.into_iter().map(&picture).collect();
    let draw = string(object, "draw")?.map(&picture);
    if draw.is_none() && text.replace(IMAGE_MARK, "").is_empty() {
        return Err(nothing_to_learn());
    }
    let mut segments = with_images(&[(prompt, false), (text, true)], images.len())?;
    segments.push(if draw.is_some() { Segment::Draw } else { Segment::End });
    Ok(Record { segments, images, draw, line })
}

/// Cuts texts at their `<image>` marks. Without any mark, the images come first.
pub(super) fn with_images(texts: &[(&str, bool)], images: usize) -> Result<Vec<Segment>, String> {
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
pub(super) fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(key, kind(other), "a string")),
    }
}

/// The strings under `key`: a list, or one alone; empty when the key is missing or null.
pub(super) fn strings<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a str>, String> {
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

pub(super) fn wrong_type(key: &str, found: &str, wanted: &str) -> String {
    format!("'{key}' is {found}, expected {wanted}")
}

pub(super) fn nothing_to_learn() -> String {
    "nothing to learn: no text and no picture to draw; give 'text', 'draw' or both".into()
}
