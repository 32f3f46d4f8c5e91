//! What the tokenizers library takes on trust, looked at before it reads a file.

use serde::Deserialize;
use serde_json::Value;

/// The longest content of an added token, in bytes. The library builds an automaton over all of them whose size is some
/// kilobytes for each byte, and whose time grows with the square of the longest.
const LONGEST_ADDED: usize = 1024;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Added {
    added_tokens: Value,
}

/// Checks the text of a `tokenizer.json`. Whether it is one is the library's to say.
///
/// # Errors
/// What the library would take hours or all memory for.
pub(super) fn check(text: &str) -> Result<(), String> {
    let added: Added = serde_json::from_str(text).unwrap_or_default();
    for (number, token) in added.added_tokens.as_array().into_iter().flatten().enumerate() {
        let content = token.get("content").and_then(Value::as_str).unwrap_or("");
        if content.len() > LONGEST_ADDED {
            return Err(format!(
                "added token {number} is {} bytes long, expected at most {LONGEST_ADDED}; correct 'content'",
                content.len()
            ));
        }
    }
    Ok(())
}
