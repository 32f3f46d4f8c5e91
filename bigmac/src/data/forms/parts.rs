//! The content of a turn: a text, or typed parts as chat APIs and processors take them.

use super::super::picture::PictureRef;
use super::keys::{check_among, has_content, string};
use super::{Named, kind, pictures, wrong_type};
use serde_json::{Map, Value};

/// The content of a turn.
pub(super) struct Content<'a>(Vec<Part<'a>>);

/// A part of it.
pub(super) enum Part<'a> {
    /// A text.
    Text(&'a str),
    /// The next of the record's images.
    Next,
    /// An image that the part itself names.
    Picture(PictureRef),
}

impl<'a> Content<'a> {
    pub fn parts(&self) -> &[Part<'a>] {
        &self.0
    }

    /// Whether it has parts that are images.
    pub fn has_pictures(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Text(_)))
    }
}

/// Reads the content under `key`.
pub(super) fn content<'a>(
    turn: &'a Map<String, Value>,
    key: &str,
    named: Named<'_>,
) -> Result<Content<'a>, String> {
    match turn.get(key) {
        None | Some(Value::Null) => Err(format!("'{key}' is missing")),
        Some(Value::String(text)) => Ok(Content(vec![Part::Text(text)])),
        Some(Value::Array(items)) => {
            let read = |(i, item): (usize, &'a Value)| {
                part(item, named).map_err(|problem| format!("part {} of '{key}': {problem}", i + 1))
            };
            Ok(Content(items.iter().enumerate().map(read).collect::<Result<_, _>>()?))
        }
        Some(other) => Err(wrong_type(key, kind(other), "a string or a list of parts")),
    }
}

/// Keys under which a part of type `image` names its picture.
const IMAGE_NAMES: [&str; 3] = ["image", "path", "url"];

fn part<'a>(item: &'a Value, named: Named<'_>) -> Result<Part<'a>, String> {
    let Value::Object(object) = item else {
        return Err(format!("{}, where {{\"type\": \"text\", \"text\": ...}} is expected", kind(item)));
    };
    let Some(name) = string(object, "type")? else {
        return Err("'type' is missing, expected text, image or image_url".into());
    };
    let known = |keys: &[&str]| check_among(object, keys, &[], |_, _| None);
    match name {
        "text" => {
            known(&["type", "text"])?;
            let text = string(object, "text")?.ok_or("'text' is missing")?;
            Ok(Part::Text(text))
        }
        "image" => {
            known(&["type", "image", "path", "url"])?;
            let mut given = IMAGE_NAMES.into_iter().filter(|key| has_content(object, key));
            match (given.next(), given.next()) {
                (None, _) => Ok(Part::Next),
                (Some(key), None) => {
                    Ok(Part::Picture(pictures::one(&object[key], &format!("'{key}'"), named)?))
                }
                (Some(one), Some(other)) => {
                    Err(format!("'{one}' and '{other}' both name the picture; keep one of them"))
                }
            }
        }
        "image_url" => {
            known(&["type", "image_url"])?;
            let url = match object.get("image_url") {
                Some(Value::Object(inner)) => {
                    // How much of a picture an API looks at is nothing that is learned from.
                    check_among(inner, &["url", "detail"], &[], |_, _| None)?;
                    inner.get("url")
                }
                other => other,
            };
            let url = url.filter(|url| !url.is_null()).ok_or("'image_url' has no 'url'")?;
            Ok(Part::Picture(pictures::one(url, "'image_url'", named)?))
        }
        "video" | "video_url" => {
            Err("videos are not read; give frames as images, or take the record out".into())
        }
        "audio" | "audio_url" | "input_audio" => Err("audio is not read; take the record out".into()),
        other => Err(format!("'{other}' is not a valid type; expected text, image or image_url")),
    }
}
