//! The keys of records: those of each form, those that published files have and nothing is lost without, and those that
//! hold what is not read. Any other is an error, so that a misspelt one does not go by unseen.

use super::{kind, wrong_type};
use bigmac_schedule::names;
use serde_json::{Map, Value};

/// Keys for the pictures to be read; one of them at a time. `file_name` and `file_names` are Hugging Face's.
pub(super) const IMAGES: [&str; 4] = ["images", "image", "file_name", "file_names"];
/// The key for the picture to be drawn.
pub(super) const DRAW: &str = "draw";
/// The keys that hold turns.
pub(super) const TURNS: [&str; 2] = ["conversations", "messages"];
/// The key of a system text beside the turns.
pub(super) const SYSTEM: &str = "system";
/// The texts of BigMac's own form.
pub(super) const TEXTS: [&str; 2] = ["text", "prompt"];

/// Keys of published files that say where a record comes from: known, and not read.
const UNREAD: [&str; 11] = [
    "id",
    "sample_id",
    "source",
    "data_source",
    "dataset",
    "model",
    "width",
    "height",
    "width_list",
    "height_list",
    "conversation_id",
];

const VIDEO: &str = "videos are not read; take the record out, or give frames of it as images";
const AUDIO: &str = "audio is not read; take the record out";
const TOOLS: &str = "tool calls are not read; write them into the texts, or take the record out";
const PREFERENCE: &str = "preferences are not learned; keep the better answer alone, without this key";
const LABEL: &str = "labels are not learned; write what is to be answered as text";
const BOXES: &str = "boxes are not read; write coordinates into the texts";
const QUESTION: &str = "write it as 'prompt', which carries no loss";
const ANSWER: &str = "write it as 'text', which is learned";

/// Keys that hold what is not read, or what this project calls otherwise, and what to do.
const REFUSED: [(&str, &str); 30] = [
    ("video", VIDEO),
    ("videos", VIDEO),
    ("audio", AUDIO),
    ("audios", AUDIO),
    ("tools", TOOLS),
    ("tool_calls", TOOLS),
    ("functions", TOOLS),
    ("function_call", TOOLS),
    ("chosen", PREFERENCE),
    ("rejected", PREFERENCE),
    ("rejected_response", PREFERENCE),
    ("rejected_messages", PREFERENCE),
    ("rejected_images", PREFERENCE),
    ("kto_tag", PREFERENCE),
    ("label", LABEL),
    ("labels", LABEL),
    ("objects", BOXES),
    ("bbox", BOXES),
    ("instruction", QUESTION),
    ("query", QUESTION),
    ("question", QUESTION),
    ("input", QUESTION),
    ("output", ANSWER),
    ("response", ANSWER),
    ("answer", ANSWER),
    ("caption", ANSWER),
    ("history", "write the turns as 'messages'"),
    ("weight", "samples and turns are not weighted; take the key out"),
    (
        "loss",
        "loss is on all answers; take the key out, or give the turn without loss as part of the question",
    ),
    ("reasoning_content", "write it into the answer"),
];

/// Whether there is anything under `key`. Null says nothing, nor does an empty text, list or object.
pub(super) fn has_content(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(holds)
}

fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        // A list in a list is nothing that anybody writes for nothing.
        Value::Array(items) => items.iter().any(|item| item.is_array() || holds(item)),
        Value::Object(object) => object.values().any(holds),
    }
}

/// Checks the keys of a record whose form reads `form` besides pictures.
pub(super) fn check(object: &Map<String, Value>, form: &[&'static str]) -> Result<(), String> {
    let known = form.iter().copied().chain(IMAGES).chain([DRAW, "id"]);
    let known: Vec<&str> = known.collect();
    let list = TURNS.iter().find(|list| form.contains(list));
    check_among(object, &known, &UNREAD, |key, value| match list {
        Some(list) if TEXTS.contains(&key) => {
            Some(format!("'{key}' is not read beside '{list}'; make it a turn, or take it out"))
        }
        None if key == SYSTEM => {
            let problem = "'system' is read with 'messages' or 'conversations' only; write it into 'prompt'";
            Some(problem.into())
        }
        _ => objects_below(key, value),
    })
}

/// Whether records are read for what is under `key`, in some form; `false` for what published files have and nothing is
/// lost without.
///
/// # Errors
/// For any other key, with the nearest known one or what to do.
pub(in crate::data) fn reads_key(key: &str) -> Result<bool, String> {
    let forms = TEXTS.into_iter().chain([SYSTEM]).chain(TURNS);
    let known: Vec<&str> = forms.chain(IMAGES).chain([DRAW, "id"]).collect();
    let object = Map::from_iter([(key.to_owned(), Value::Bool(true))]);
    check_among(&object, &known, &UNREAD, |_, _| None)?;
    Ok(!UNREAD.contains(&key))
}

/// What to say of an unknown key with a list of objects: turns under a misspelt key, or the records of a file that wraps
/// them in an object.
fn objects_below(key: &str, value: &Value) -> Option<String> {
    let items = value.as_array().filter(|items| items.iter().all(Value::is_object))?;
    let (count, hint) = (items.len(), names::hint(names::nearest(key, TURNS)));
    Some(format!(
        "'{key}' is not a valid key{hint}; it holds a list of {count} objects: if those are the records, save that list \
         alone"
    ))
}

/// Checks that every key with a value is among `known`, or `unread`; `reason` knows better than
/// the nearest name why another one is not.
pub(super) fn check_among(
    object: &Map<String, Value>,
    known: &[&str],
    unread: &[&str],
    reason: impl Fn(&str, &Value) -> Option<String>,
) -> Result<(), String> {
    for (key, value) in object {
        let name = key.as_str();
        if known.contains(&name) || unread.contains(&name) || !holds(value) {
            continue;
        }
        if let Some((_, advice)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("'{key}' is not read: {advice}"));
        }
        return Err(reason(name, value).unwrap_or_else(|| {
            let hint = names::hint(names::nearest(name, known.iter().copied()));
            let (last, others) = known.split_last().unwrap_or((&"none", &[]));
            let and = if others.is_empty() { "" } else { " and " };
            format!("'{key}' is not a valid key{hint}; known are {}{and}{last}", others.join(", "))
        }));
    }
    Ok(())
}

/// The string under `key`; `None` when the key is missing or null.
pub(super) fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(key, kind(other), "a string")),
    }
}
