//! Messages that can be read: what files and users put into them is neither obeyed by a terminal nor too long.

use std::fmt::Write;

/// The most characters of a message.
const MOST: usize = 2000;
/// Of a longer one, so many of its end are kept, where it says what to do.
const END: usize = 600;

/// A message with control characters as escapes (`\u{1b}`), and the middle left out where it is long.
pub(super) fn readable(message: &str) -> String {
    let mut plain = String::with_capacity(message.len());
    for c in message.chars() {
        match c {
            '\n' | '\t' => plain.push(c),
            // Marks that turn the direction of writing hide what a name is.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(plain, "{}", c.escape_unicode());
            }
            c => plain.push(c),
        }
    }
    let count = plain.chars().count();
    if count <= MOST {
        return plain;
    }
    let start: String = plain.chars().take(MOST - END).collect();
    let end: String = plain.chars().skip(count - END).collect();
    format!("{start} ... ({} characters left out) ... {end}", count - MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered_and_long_messages_keep_both_ends() {
        assert_eq!(readable("file 'a\u{1b}[31m\0' is\tred\n"), "file 'a\\u{1b}[31m\\u{0}' is\tred\n");
        assert_eq!(readable("\u{202e}gpj"), "\\u{202e}gpj");
        assert_eq!(readable("naïve 猫"), "naïve 猫");
        let long = readable(&format!("'{}' is too long; shorten it", "é".repeat(50_000)));
        assert!(long.starts_with("'éé") && long.ends_with("is too long; shorten it"), "{long}");
        assert!(long.contains(" ... (48026 characters left out) ... "), "{long}");
    }
}
