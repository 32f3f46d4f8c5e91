//! Documents as trees of texts: what serde's values can't hold (a key twice, NaN, 1e999) can be written too.

use crate::random::Random;
use serde_json::Value;
use std::fmt::Write;

/// A JSON or TOML document.
#[derive(Clone)]
pub enum Node {
    /// Keys in order; one may come twice.
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// Anything else, as it is written.
    Raw(String),
}

/// How a document is written.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Json,
    Toml,
}

/// What a mutation did, and what follows from it.
#[derive(Default)]
pub struct Change {
    pub what: String,
    /// The last key on the way to the changed value.
    pub key: String,
    /// The value is now one that no reader may accept, whatever the key.
    pub never_right: bool,
}

/// Values that are wrong almost anywhere. Numbers between a thousand and 2^31 are left out: as sizes they ask for work
/// that is long but possible.
pub const EXTREMES: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "3",
    "17",
    "-0.0",
    "0.5",
    "-2147483648",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "1e308",
    "-1e308",
    "1e-320",
    "1e999",
    "true",
    "false",
    "null",
    "\"\"",
    "\" \"",
    "\"x\"",
    "\"nan\"",
    "\"-1\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"../..\"",
    "\"%s%n\"",
    "\"\\u001b[31m\"",
    "[]",
    "{}",
    "[[]]",
    "[0]",
    "[{}]",
    "{\"a\": 1}",
    "\"cpu\"",
    "\"cuda:99\"",
    "\"4294967296mb\"",
    "\"99999999999GiB\"",
    "\"-1mb\"",
    "\"a.png\"",
    "\"9\\u0001\"",
];

/// How many of them are numbers; they come first.
pub const NUMBERS: usize = 23;

/// Values that neither format has, or that TOML has and no key accepts.
const NEVER: &[&str] =
    &["nan", "inf", "-inf", "NaN", "Infinity", "0x", "1_", "'", "\"", "[", "{", "+", "tru"];

/// Names that no key has.
const STRANGE_KEYS: &[&str] =
    &["", "x", "__proto__", "\u{0}", "naïve", "a.b", "widht", "\u{202e}txet", "[", "\"", "\n"];

impl Node {
    /// The tree of a value.
    pub fn of(value: &Value) -> Node {
        match value {
            Value::Object(map) => Node::Object(map.iter().map(|(k, v)| (k.clone(), Node::of(v))).collect()),
            Value::Array(list) => Node::Array(list.iter().map(Node::of).collect()),
            other => Node::Raw(other.to_string()),
        }
    }

    /// Parses a document; none where it is not one.
    pub fn read(text: &str, form: Form) -> Option<Node> {
        let value = match form {
            Form::Json => serde_json::from_str(text).ok()?,
            Form::Toml => serde_json::to_value(toml::from_str::<toml::Table>(text).ok()?).ok()?,
        };
        Some(Node::of(&value))
    }

    /// The document as text. A TOML document stands on one line per top key.
    pub fn write(&self, form: Form) -> String {
        let mut out = String::new();
        match (form, self) {
            (Form::Toml, Node::Object(entries)) => {
                for (key, value) in entries {
                    out.push_str(&quoted(key));
                    out.push_str(" = ");
                    value.put(form, &mut out);
                    out.push('\n');
                }
            }
            _ => self.put(form, &mut out),
        }
        out
    }

    fn put(&self, form: Form, out: &mut String) {
        match self {
            Node::Raw(text) => out.push_str(text),
            Node::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    item.put(form, out);
                }
                out.push(']');
            }
            Node::Object(entries) => {
                out.push('{');
                let between = if form == Form::Json { ": " } else { " = " };
                for (i, (key, value)) in entries.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    let _ = write!(out, "{comma}{}{between}", quoted(key));
                    value.put(form, out);
                }
                out.push('}');
            }
        }
    }

    /// The number of nodes below this one.
    fn count(&self) -> usize {
        match self {
            Node::Raw(_) => 0,
            Node::Array(items) => items.iter().map(|item| 1 + item.count()).sum(),
            Node::Object(entries) => entries.iter().map(|(_, value)| 1 + value.count()).sum(),
        }
    }

    /// The node numbered `at`, in writing order, with the last key on the way to it.
    fn find(&mut self, at: &mut usize, key: &str) -> Option<(&mut Node, String)> {
        let children: Vec<(&mut Node, String)> = match self {
            Node::Raw(_) => return None,
            Node::Array(items) => items.iter_mut().map(|item| (item, key.to_owned())).collect(),
            Node::Object(entries) => entries.iter_mut().map(|(key, value)| (value, key.clone())).collect(),
        };
        for (child, key) in children {
            if *at == 0 {
                return Some((child, key));
            }
            *at -= 1;
            if let Some(found) = child.find(at, &key) {
                return Some(found);
            }
        }
        None
    }

    /// Any node below this one, with its key; none where there are none.
    fn any(&mut self, random: &mut Random) -> Option<(&mut Node, String)> {
        let mut at = random.below(self.count());
        self.find(&mut at, "")
    }

    /// Calls `f` with every key and its value, at any depth.
    pub fn each_entry(&mut self, f: &mut dyn FnMut(&str, &mut Node)) {
        match self {
            Node::Raw(_) => {}
            Node::Array(items) => items.iter_mut().for_each(|item| item.each_entry(f)),
            Node::Object(entries) => {
                for (key, value) in entries {
                    f(key, value);
                    value.each_entry(f);
                }
            }
        }
    }
}

/// Changes one place of a document, and tells how.
pub fn mutate(root: &mut Node, random: &mut Random) -> Change {
    match random.below(10) {
        0..=4 => replace(root, random),
        5 => swap(root, random),
        6 => strange_key(root, random),
        _ => rearrange(root, random),
    }
}

/// One value becomes another.
fn replace(root: &mut Node, random: &mut Random) -> Change {
    let Some((node, key)) = root.any(random) else { return Change::default() };
    let mut before = String::new();
    node.put(Form::Json, &mut before);
    let (after, never_right) = match random.below(12) {
        0 => {
            let deep = [100, 10_000, 1_000_000][random.below(3)];
            ("[".repeat(deep) + &"]".repeat(deep), true)
        }
        1 => (quoted(&"x".repeat([300, 5_000, 1_000_000][random.below(3)])), false),
        2 => (random.pick(NEVER).to_owned(), true),
        3 => (quoted(&format!("{}\u{0}", before.trim_matches('"'))), false),
        4 => (arithmetic(&before, random), false),
        // Another number where there was one: it comes further than another type does.
        5..=8 if before.parse::<f64>().is_ok() => (random.pick(&EXTREMES[..NUMBERS]).to_owned(), false),
        _ => (random.pick(EXTREMES).to_owned(), false),
    };
    let what = format!("'{key}': {} instead of {}", short(&after), short(&before));
    *node = Node::Raw(after);
    Change { what, key, never_right }
}

/// A number near another one.
fn arithmetic(before: &str, random: &mut Random) -> String {
    match before.parse::<f64>() {
        Ok(x) if x.fract() == 0.0 && x.abs() < 1e15 => {
            let x = x as i64;
            [x + 1, x - 1, 2 * x, -x, x / 2][random.below(5)].to_string()
        }
        Ok(x) => format!("{:e}", [-x, x * 0.5, x * 1e300, x * 1e-300][random.below(4)]),
        Err(_) => "1".into(),
    }
}

fn swap(root: &mut Node, random: &mut Random) -> Change {
    let (mut one, mut other) = (random.below(root.count()), random.below(root.count()));
    let Some((first, key)) = root.find(&mut one, "").map(|(node, key)| (node.clone(), key)) else {
        return Change::default();
    };
    let Some((second, other_key)) = root.find(&mut other, "") else { return Change::default() };
    *second = first;
    Change { what: format!("'{other_key}' has the value of '{key}'"), key: other_key, never_right: false }
}

/// An unknown key, beside the others.
fn strange_key(root: &mut Node, random: &mut Random) -> Change {
    let mut name = random.pick(STRANGE_KEYS).to_owned();
    let deepest = random.below(root.count() + 1);
    let target =
        if deepest == 0 { Some(root) } else { root.find(&mut (deepest - 1), "").map(|(node, _)| node) };
    let Some(Node::Object(entries)) = target else { return Change::default() };
    if random.one_in(2)
        && let Some((key, _)) = entries.first()
    {
        name = format!("{key}x");
    }
    let at = random.below(entries.len() + 1);
    entries.insert(at, (name.clone(), Node::Raw("1".into())));
    Change { what: format!("unknown key {name:?}"), key: name, never_right: true }
}

/// Deletes, doubles, renames or empties.
fn rearrange(root: &mut Node, random: &mut Random) -> Change {
    let deepest = random.below(root.count() + 1);
    let target = if deepest == 0 { Some((root, "".into())) } else { root.find(&mut (deepest - 1), "") };
    let Some((node, parent)) = target else { return Change::default() };
    let how = random.below(4);
    let (what, key) = match node {
        Node::Object(entries) if !entries.is_empty() => {
            let at = random.place(entries);
            let key = entries[at].0.clone();
            let what = match how {
                0 => {
                    entries.remove(at);
                    "deleted"
                }
                1 => {
                    let copy = entries[at].clone();
                    entries.push(copy);
                    "twice"
                }
                2 => {
                    entries[at].0 = key.to_uppercase();
                    "in capitals"
                }
                _ => {
                    entries.clear();
                    "and all beside it deleted"
                }
            };
            (what, key)
        }
        Node::Array(items) if !items.is_empty() => {
            let at = random.place(items);
            let what = match how {
                0 => {
                    items.remove(at);
                    "an element deleted"
                }
                1 => {
                    let copy = items[at].clone();
                    items.push(copy);
                    "an element twice"
                }
                2 => {
                    items.reverse();
                    "reversed"
                }
                _ => {
                    items.clear();
                    "emptied"
                }
            };
            (what, parent)
        }
        _ => return Change::default(),
    };
    Change { what: format!("'{key}' {what}"), key, never_right: false }
}

/// A text as JSON and TOML write it.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The beginning of a text, for messages.
pub fn short(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        let _ = write!(cut, "... ({} bytes)", text.len());
    }
    cut
}
