//! The pictures of a record: the keys that name them, and the shapes that a name comes in.

use super::super::picture::PictureRef;
use super::keys::{DRAW, IMAGES, check_among, has_content, string};
use super::{Named, RawRecord, kind, wrong_type};
use serde_json::Value;

/// No path of a file is longer (`PATH_MAX` of Linux); a picture in base64 is.
const LONGEST_NAME: usize = 4096;
/// Characters of a name that a message shows.
const SHOWN: usize = 60;

/// The pictures to be read, in order: named in the record, or held by its file.
pub(super) fn listed(raw: &RawRecord, named: Named<'_>) -> Result<Vec<PictureRef>, String> {
    let mut given = IMAGES.into_iter().filter(|key| has_content(&raw.object, key));
    let Some(key) = given.next() else { return Ok(raw.images.clone()) };
    if let Some(other) = given.next() {
        return Err(format!(
            "'{key}' and '{other}' both name pictures; keep one of them, or make the other null"
        ));
    }
    if !raw.images.is_empty() {
        let held = raw.images.len();
        return Err(format!(
            "'{key}' names pictures, but the file holds {held} for this record; keep one of the two"
        ));
    }
    let wrong = |found| wrong_type(key, found, "a list of paths");
    match &raw.object[key] {
        Value::Array(items) => {
            let find = |(i, item): (usize, &Value)| {
                let label = format!("item {} of '{key}'", i + 1);
                match name(item, &label)? {
                    Some(name) => find(name, &label, named),
                    None if matches!(item, Value::Array(_)) => Err(wrong("a list of lists")),
                    None if matches!(item, Value::Number(_) | Value::Bool(_)) => {
                        Err(wrong("a list with something other than strings"))
                    }
                    None => Err(format!("{label} is empty, expected a path")),
                }
            };
            items.iter().enumerate().map(find).collect()
        }
        one => match name(one, &format!("'{key}'"))? {
            Some(name) => Ok(vec![find(name, &format!("'{key}'"), named)?]),
            None => Err(wrong(kind(one))),
        },
    }
}

/// The picture to be drawn.
pub(super) fn drawn(raw: &RawRecord, named: Named<'_>) -> Result<Option<PictureRef>, String> {
    if !has_content(&raw.object, DRAW) {
        return Ok(raw.draw.clone());
    }
    if raw.draw.is_some() {
        return Err(format!(
            "'{DRAW}' names a picture, but the file holds one for this record; keep one of the two"
        ));
    }
    let value = &raw.object[DRAW];
    let label = format!("'{DRAW}'");
    match name(value, &label)? {
        Some(name) => Ok(Some(find(name, &label, named)?)),
        None => Err(wrong_type(DRAW, kind(value), "a path")),
    }
}

/// The picture that a value names, which `label` calls by its place in the record.
pub(super) fn one(value: &Value, label: &str, named: Named<'_>) -> Result<PictureRef, String> {
    match name(value, label)? {
        Some(name) => find(name, label, named),
        None => Err(format!("{label} is {}, expected a path", kind(value))),
    }
}

/// The name in a value: a text, or an object with `path` as Hugging Face writes pictures; none in anything else.
fn name<'a>(value: &'a Value, label: &str) -> Result<Option<&'a str>, String> {
    match value {
        Value::String(name) => Ok(Some(name).filter(|name| !name.is_empty()).map(String::as_str)),
        Value::Object(object) => {
            if has_content(object, "bytes") {
                return Err(format!(
                    "{label} holds the bytes of a picture; write it to a file and give its path, or use Parquet"
                ));
            }
            check_among(object, &["path", "bytes"], &[], |_, _| None)
                .map_err(|problem| format!("{label}: {problem}"))?;
            match string(object, "path").map_err(|problem| format!("{label}: {problem}"))? {
                Some(path) if !path.is_empty() => Ok(Some(path)),
                _ => Err(format!("{label} has no 'path'")),
            }
        }
        _ => Ok(None),
    }
}

fn find(name: &str, label: &str, named: Named<'_>) -> Result<PictureRef, String> {
    let shown = || -> String {
        let short: String = name.chars().take(SHOWN).collect();
        if short.len() < name.len() { short + "..." } else { short }
    };
    if name.starts_with("data:") {
        return Err(format!("{label} is a data: URL; write the picture to a file and give its path"));
    }
    // Qwen's files name local pictures so.
    let path = name.strip_prefix("file://").unwrap_or(name);
    if path.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('/')) {
        let shown = shown();
        return Err(format!(
            "{label} is a URL ('{shown}'); nothing is downloaded: save the picture and give its path"
        ));
    }
    if path.len() > LONGEST_NAME {
        return Err(format!(
            "{label} is a text of {} bytes, expected a path; base64 is not read",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Err(format!(
            "{label} has a NUL character ('{}'), expected a path",
            shown().replace('\0', "\\0")
        ));
    }
    named(path)
}
