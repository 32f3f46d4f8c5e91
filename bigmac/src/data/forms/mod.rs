//! What one record of a data set says: texts, marks and pictures, before any token. Each form that people write records
//! in is a file here; what they share (keys, names of pictures, marks) is one as well.

mod chat;
mod keys;
mod marks;
mod own;
mod parts;
mod pictures;

use super::error::Place;
use super::picture::PictureRef;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

pub(super) use self::keys::reads_key;

/// Where an image goes in a text.
pub const IMAGE_MARK: &str = "<image>";
/// Ends a text from which a picture is to be drawn. Written by the reader, not in data sets.
pub const DRAW_MARK: &str = "<draw>";

/// A stretch of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Text; an [`IMAGE_MARK`] in it is text too.
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

/// Finds the picture that a text in a record names.
pub(super) type Named<'a> = &'a dyn Fn(&str) -> Result<PictureRef, String>;

/// Reads a record of any form; `named` finds the picture that a text in it names.
///
/// # Errors
/// What is wrong with the record, without its place.
pub(super) fn read(raw: RawRecord, named: Named<'_>) -> Result<Record, String> {
    let mut chats = keys::TURNS.into_iter().filter(|list| keys::has_content(&raw.object, list));
    match (chats.next(), chats.next()) {
        (Some(one), Some(other)) => {
            Err(format!("'{one}' and '{other}' both hold turns; keep one of them, or make the other null"))
        }
        (Some(list), None) => chat::record(&raw, list, named),
        _ => own::record(&raw, named),
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
