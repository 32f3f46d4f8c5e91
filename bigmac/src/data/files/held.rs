//! Pictures that a shard or a table holds for a record, and how names in the record find them.

use super::super::error::Place;
use super::super::forms::{self, RawRecord, Record};
use super::super::picture::PictureRef;
use super::picture_file;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// A picture that the data set's file holds itself.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What a record may call it; the first is for people.
    pub names: Vec<String>,
    /// The picture.
    pub picture: PictureRef,
}

/// A record of a file that holds pictures.
pub(super) struct HeldRecord {
    /// What the record says.
    pub object: Map<String, Value>,
    /// Its pictures other than one to be drawn, in any order.
    pub images: Vec<Held>,
    /// Its picture to be drawn.
    pub draw: Option<Held>,
    /// The file.
    pub file: Arc<Path>,
    /// Where in the file.
    pub place: Place,
}

impl HeldRecord {
    /// Reads the record. Where its object names pictures, they are those that the file holds for it; where the file
    /// holds none of that use (to be read, to be drawn), they are files of their own, named from `folder` or the file's
    /// folder. Where it names none, the pictures that are held come in `order`.
    ///
    /// # Errors
    /// What is wrong: with the record, with a name that finds nothing, or with a picture that nothing names.
    pub fn read(
        self,
        folder: Option<&Path>,
        order: impl FnOnce(Vec<Held>) -> Result<Vec<Held>, String>,
    ) -> Result<Record, String> {
        let HeldRecord { object, images, draw, file, place } = self;
        let drawn = object.get("draw").and_then(picture_name).map(str::to_owned);
        let (names_images, has_images, has_draw) =
            (names_images(&object), !images.is_empty(), draw.is_some());

        let called = |held: &Held, name: &str| held.names.iter().any(|n| n == name);
        // What may be found by a name; what may not is taken as it lies.
        let (mut nameable, mut taken) = (Vec::new(), Vec::new());
        for held in images {
            let by_name = names_images || drawn.as_deref().is_some_and(|name| called(&held, name));
            if by_name { nameable.push(held) } else { taken.push(held) }
        }
        let taken_draw = match draw {
            Some(held) if drawn.is_some() || (names_images && is_named(&object, &held)) => {
                nameable.push(held);
                None
            }
            other => other,
        };
        let used = RefCell::new(vec![false; nameable.len()]);
        let origin = Arc::clone(&file);
        let outside = place.clone();
        let named = |name: &str| {
            if let Some(at) = nameable.iter().position(|held| called(held, name)) {
                used.borrow_mut()[at] = true;
                return Ok(nameable[at].picture.clone());
            }
            let holds = if drawn.as_deref() == Some(name) { has_draw } else { has_images };
            if holds {
                let held: Vec<&str> =
                    nameable.iter().filter_map(|h| h.names.first()).map(String::as_str).collect();
                return Err(format!(
                    "'{name}' is not among the pictures of the sample ({})",
                    held.join(", ")
                ));
            }
            Ok(picture_file(&origin, folder, &outside, name))
        };
        let images = order(taken)?.into_iter().map(|held| held.picture).collect();
        let draw = taken_draw.map(|held| held.picture);
        let record = forms::read(RawRecord { object, images, draw, file, place }, &named)?;
        let used = used.borrow();
        if let Some((held, _)) = nameable.iter().zip(used.iter()).find(|(_, used)| !**used) {
            let name = held.names.first().map_or("", String::as_str);
            return Err(format!(
                "the record names pictures, but not '{name}', which the sample holds; name it too"
            ));
        }
        Ok(record)
    }
}

/// The text that names a picture, as the forms read it: a string, or the path of an object of the Hub's form.
fn picture_name(value: &Value) -> Option<&str> {
    let name = match value {
        Value::String(name) => Some(name.as_str()),
        Value::Object(object) => object.get("path").and_then(Value::as_str),
        _ => None,
    };
    name.map(|name| name.strip_prefix("file://").unwrap_or(name)).filter(|name| !name.is_empty())
}

/// Whether an object names pictures to be read: under a key of its own, or in a typed part of a turn.
fn names_images(object: &Map<String, Value>) -> bool {
    !image_names(object).is_empty()
}

fn is_named(object: &Map<String, Value>, held: &Held) -> bool {
    image_names(object).iter().any(|name| held.names.iter().any(|n| n == name))
}

/// All names of pictures to be read that an object holds.
fn image_names(object: &Map<String, Value>) -> Vec<&str> {
    let mut names = Vec::new();
    for key in ["image", "images", "file_name", "file_names"] {
        match object.get(key) {
            Some(Value::Array(list)) => names.extend(list.iter().filter_map(picture_name)),
            Some(value) => names.extend(picture_name(value)),
            None => {}
        }
    }
    let lists = ["messages", "conversations"].into_iter().filter_map(|key| object.get(key)?.as_array());
    let turns = lists.flatten().filter_map(Value::as_object);
    let parts = turns.flat_map(|turn| turn.values().filter_map(Value::as_array)).flatten();
    for part in parts.filter_map(Value::as_object) {
        if !part.get("type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("image")) {
            continue;
        }
        for key in ["image", "path", "url", "image_url"] {
            let value = part.get(key);
            names
                .extend(value.and_then(|v| picture_name(v).or_else(|| v.get("url").and_then(Value::as_str))));
        }
    }
    names
}
