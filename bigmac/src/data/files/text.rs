//! Text that data sets are written in: its encoding, and JSON read so that nothing of it is lost.

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Deserializer, Map, Number, Value};
use std::fmt;

/// What some editors and spreadsheets write before UTF-8 text; no part of the text.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// `bytes` without a byte order mark.
pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// Why the first bytes of a file are not those of text in UTF-8, where that can be told.
pub(super) fn not_text(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("is UTF-16 text; save it as UTF-8"),
        // ASCII in UTF-16 without a byte order mark.
        [0, first, ..] | [first, 0, ..] if first.is_ascii() && *first != 0 => {
            Some("is UTF-16 text; save it as UTF-8")
        }
        [0x1F, 0x8B, ..] => Some("is compressed (gzip); unpack it"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("is compressed (zstd); unpack it"),
        [b'P', b'K', 3, 4, ..] => Some("is a zip archive; unpack it"),
        _ => None,
    }
}

/// Of text that is in another encoding, or damaged.
pub(super) const NOT_UTF8: &str = "not UTF-8 text; save the file as UTF-8";

/// Reads one JSON value. An object that has a key twice is an error: of the two values, one would be lost.
pub(super) fn json(text: &str) -> Result<Value, String> {
    let mut reader = Deserializer::from_str(text);
    Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)).map_err(
        |error| match error.classify() {
            Category::Data => {
                let told = error.to_string();
                told.rsplit_once(" at line ").map_or(told.as_str(), |(problem, _)| problem).to_owned()
            }
            _ => not_json(error),
        },
    )
}

pub(super) fn not_json(error: impl fmt::Display) -> String {
    format!(
        "not JSON ({error}); every line is one object, such as {{\"text\": \"<image>a cat\", \"images\": \
         [\"cat.png\"]}}"
    )
}

/// Builds a [`Value`] as serde_json does, except that it refuses keys that come twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let problem =
                    format!("key '{key}' comes twice in one object; of its two values one would be lost");
                return Err(A::Error::custom(problem));
            }
            let value = entries.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
