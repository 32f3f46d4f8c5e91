//! What the tokenizers library takes on trust, looked at before it reads a file.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The longest content of an added token, in bytes. The library builds an automaton over all of them whose size is some
/// kilobytes for each byte, and whose time grows with the square of the longest.
const LONGEST_ADDED: usize = 1024;
/// The largest id of a token. The library counts on from the largest in 32 bits, and begins again at 0.
const LARGEST_ID: u64 = i32::MAX as u64;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    added_tokens: Value,
    model: Value,
}

/// Checks the text of a `tokenizer.json`. Whether it is one is the library's to say.
///
/// # Errors
/// What the library would take hours or all memory for, and what it would read wrongly without a word.
pub(super) fn check(text: &str) -> Result<(), String> {
    let parts: Parts = serde_json::from_str(text).unwrap_or_default();
    for (number, token) in parts.added_tokens.as_array().into_iter().flatten().enumerate() {
        let content = token.get("content").and_then(Value::as_str).unwrap_or("");
        if content.len() > LONGEST_ADDED {
            return Err(format!(
                "added token {number} is {} bytes long, expected at most {LONGEST_ADDED}; correct 'content'",
                content.len()
            ));
        }
        if token.get("id").and_then(Value::as_u64).is_some_and(|id| id > LARGEST_ID) {
            return Err(beyond(content));
        }
    }
    parts.model.get("vocab").and_then(Value::as_object).map_or(Ok(()), ids)
}

/// Checks that ids are small, and each one token's.
fn ids(vocabulary: &Map<String, Value>) -> Result<(), String> {
    let mut taken = HashMap::with_capacity(vocabulary.len());
    for (token, id) in vocabulary {
        let Some(id) = id.as_u64() else { continue };
        if id > LARGEST_ID {
            return Err(beyond(token));
        }
        if let Some(other) = taken.insert(id, token) {
            return Err(format!(
                "the tokens '{other}' and '{token}' have the same id {id}; each needs its own"
            ));
        }
    }
    Ok(())
}

fn beyond(token: &str) -> String {
    format!("the id of token '{token}' is larger than {LARGEST_ID}; number the tokens from 0")
}
