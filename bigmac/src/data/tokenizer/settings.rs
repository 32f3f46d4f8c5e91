//! What a `tokenizer.json` does to text beside cutting it into tokens.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Normalizers after which a text is another one. NFC and NFD are left out: they change how a letter is written, not
/// which one it is; so are those that only write spaces or bytes in another way.
const CHANGING: [&str; 8] =
    ["Lowercase", "Strip", "StripAccents", "BertNormalizer", "NFKC", "NFKD", "Nmt", "Precompiled"];
/// Pre-tokenizers that cut at white space and leave it out.
const WITHOUT_SPACES: [&str; 3] = ["Whitespace", "WhitespaceSplit", "BertPreTokenizer"];

/// The parts of a `tokenizer.json` that the library reads but does not tell, or tells only in part.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    truncation: Value,
    padding: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    dropout: Option<f64>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    byte_fallback: bool,
}

impl Settings {
    /// Of a file that the library has read.
    pub fn read(text: &str) -> Self {
        // Types that the library takes and this does not are those of fields that it does not use.
        serde_json::from_str(text).unwrap_or_default()
    }

    /// One sentence each for what is switched off, and for what changes text and is left as it is.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.truncation.is_null() {
            let length = self.truncation.get("max_length").and_then(Value::as_u64);
            let length = length.map(|length| format!(" to {length} tokens")).unwrap_or_default();
            notes.push(format!("truncation{length} is switched off: all text is learned"));
        }
        if !self.padding.is_null() {
            notes.push("padding is switched off: nothing is added to a text".to_owned());
        }
        if let Some(share) = self.model.dropout.filter(|share| *share > 0.0) {
            notes.push(format!("dropout of {share} is switched off: a text always becomes the same tokens"));
        }
        let normalizers = named(&self.normalizer, &CHANGING);
        if !normalizers.is_empty() {
            let list = normalizers.join(", ");
            notes.push(format!("its normalizer ({list}) changes texts, and the changed ones are learned"));
        }
        let cutters = named(&self.pre_tokenizer, &WITHOUT_SPACES);
        if !cutters.is_empty() {
            let list = cutters.join(", ");
            notes.push(format!(
                "its pre-tokenizer ({list}) drops white space: spaces and line breaks are not learned"
            ));
        }
        notes
    }

    /// The token that unknown text becomes.
    pub fn unknown(&self, inner: &HfTokenizer) -> Option<u32> {
        self.model.unk_id.or_else(|| inner.token_to_id(self.model.unk_token.as_deref()?))
    }

    /// Whether characters may be left out without a token that stands for them; false only where that is certain.
    pub fn may_drop(&self, inner: &HfTokenizer) -> bool {
        let has = |token: String| inner.token_to_id(&token).is_some();
        let byte_level = || {
            let named = |value| !named(value, &["ByteLevel"]).is_empty();
            (named(&self.pre_tokenizer) || named(&self.normalizer))
                && ByteLevel::alphabet().into_iter().all(|letter| has(letter.to_string()))
        };
        let fallback = || self.model.byte_fallback && (0..=255u8).all(|byte| has(format!("<0x{byte:02X}>")));
        // A BPE without a token for it drops what it does not know; every other model refuses it.
        let model = match inner.get_model() {
            ModelWrapper::BPE(_) => self.unknown(inner).is_some() || byte_level() || fallback(),
            _ => true,
        };
        let cuts = any(&self.pre_tokenizer, &|key, value| key == "behavior" && value == "Removed")
            || any(&self.pre_tokenizer, &|key, value| key == "type" && value == "CharDelimiterSplit")
            || any(&self.pre_tokenizer, &|key, value| key == "type" && value == "Delimiter");
        let removes = any(&self.normalizer, &|key, value| {
            (key == "content" && value == "") || (key == "clean_text" && value == true) || value == "Nmt"
        });
        !model || cuts || removes
    }
}

/// Switches off what cuts, pads or draws at random.
///
/// # Errors
/// In the library's words.
pub(super) fn switch_off(inner: &mut HfTokenizer) -> Result<(), String> {
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    inner.with_padding(None);
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(ModelWrapper::BPE(bpe));
    }
    Ok(())
}

/// Those of `types` that a normalizer or pre-tokenizer is, or has in a sequence.
fn named<'a>(value: &Value, types: &[&'a str]) -> Vec<&'a str> {
    let is = |name: &&str| any(value, &|key, value| key == "type" && value == *name);
    types.iter().copied().filter(|name| is(name)).collect()
}

/// Whether a key and its value, in `value` or anything in it, are such.
fn any(value: &Value, such: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any(item, such)),
        Value::Object(object) => object.iter().any(|(key, value)| such(key, value) || any(value, such)),
        _ => false,
    }
}
