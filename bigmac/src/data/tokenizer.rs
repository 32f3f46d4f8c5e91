//! Text to token ids and back: bytes by default, or any Hugging Face `tokenizer.json`.

use super::error::DataError;
use std::path::Path;
use tokenizers::Tokenizer as HfTokenizer;

/// Ids of the tokens that are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specials {
    /// Fills unused places; never carries loss.
    pub pad: u32,
    /// Begins every sample.
    pub bos: u32,
    /// Ends a text.
    pub eos: u32,
    /// Stands where an image embedding goes.
    pub image: u32,
    /// Ends a text from which a picture is to be drawn.
    pub draw: u32,
}

/// The names under which a `tokenizer.json` may hold each special token; the first that it has is taken.
const PAD: &[&str] = &["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>"];
const BOS: &[&str] = &["<bos>", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"];
const EOS: &[&str] = &["<eos>", "</s>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"];
const IMAGE: &[&str] = &["<image>", "<|image_pad|>", "<|image|>", "<image_pad>"];
const DRAW: &[&str] = &["<draw>", "<|draw|>"];

/// Vocabulary sizes are rounded up to a multiple of this, which matrix products like.
const VOCAB_MULTIPLE: usize = 8;

/// Text to token ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    specials: Specials,
    vocab_size: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Bytes,
    HuggingFace(Box<HfTokenizer>),
}

impl Default for Tokenizer {
    fn default() -> Self {
        Tokenizer::bytes()
    }
}

impl Tokenizer {
    /// One token per UTF-8 byte (ids 0..256), then `<pad>` 256, `<bos>` 257, `<eos>` 258, `<image>` 259, `<draw>` 260;
    /// a vocabulary of 264.
    pub fn bytes() -> Self {
        let specials = Specials { pad: 256, bos: 257, eos: 258, image: 259, draw: 260 };
        Tokenizer { kind: Kind::Bytes, specials, vocab_size: 261usize.next_multiple_of(VOCAB_MULTIPLE) }
    }

    /// Reads a `tokenizer.json` and looks its special tokens up under their common names (`<s>`, `<|im_end|>`,
    /// `<|image_pad|>`, ...).
    ///
    /// # Errors
    /// When the file cannot be read, or lacks special tokens: all that are missing are named.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let fail =
            |problem: &str| DataError::contents(path, format!("cannot be used as a tokenizer: {problem}"));
        let text = std::fs::read_to_string(path).map_err(DataError::read(path))?;
        let mut inner: HfTokenizer = text
            .parse()
            .map_err(|e| fail(&format!("not a tokenizer.json of the tokenizers library ({e})")))?;
        // A caption that happens to contain `</s>` must not end the sample: special tokens come from us alone.
        inner.set_encode_special_tokens(true);

        let mut missing = Vec::new();
        let mut look_up = |key: &str, names: &[&str]| {
            names.iter().find_map(|name| inner.token_to_id(name)).unwrap_or_else(|| {
                missing.push(format!("{key} (looked for {})", names.join(", ")));
                0
            })
        };
        let specials = Specials {
            pad: look_up("pad", PAD),
            bos: look_up("bos", BOS),
            eos: look_up("eos", EOS),
            image: look_up("image", IMAGE),
            draw: look_up("draw", DRAW),
        };
        if !missing.is_empty() {
            return Err(fail(&format!(
                "special tokens are missing: {}; add them to its added_tokens",
                missing.join("; ")
            )));
        }
        // Ids may have gaps: the size is the largest id + 1, not the number of entries.
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        let vocab_size = (largest + 1).next_multiple_of(VOCAB_MULTIPLE);
        Ok(Tokenizer { kind: Kind::HuggingFace(Box::new(inner)), specials, vocab_size })
    }

    /// Rows an embedding needs: the largest id + 1, rounded up to a multiple of 8 (264 for bytes).
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Ids of the special tokens.
    pub fn specials(&self) -> Specials {
        self.specials
    }

    /// Token ids of `text`, without special tokens before or after it; text that looks like one stays text.
    ///
    /// # Errors
    /// What the `tokenizer.json`'s own rules refuse, in its words; bytes refuse nothing.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        match &self.kind {
            Kind::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Kind::HuggingFace(inner) => {
                Ok(inner.encode_fast(text, false).map_err(|e| e.to_string())?.get_ids().to_vec())
            }
        }
    }

    /// The text of `ids`; special and unused ids are left out, bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// What the `tokenizer.json`'s decoder refuses, in its words; bytes refuse nothing.
    pub fn decode(&self, ids: &[u32]) -> Result<String, String> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::HuggingFace(inner) => inner.decode(ids, true).map_err(|e| e.to_string()),
        }
    }
}
