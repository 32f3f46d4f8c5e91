//! Text to token ids and back: bytes by default, or any Hugging Face `tokenizer.json`.

mod limits;
mod missed;
mod names;
mod settings;

pub use missed::Missed;
pub(in crate::data) use missed::MissedTotal;

use super::error::DataError;
use super::guard::guarded;
use crate::config::Tokens;
use bigmac_runtime::fs::read_text;
use settings::Settings;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

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

/// Vocabulary sizes are rounded up to a multiple of this, which matrix products like.
const VOCAB_MULTIPLE: usize = 8;

/// Text as tokens, and how much of it they do not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<u32>,
    /// What was not understood.
    pub missed: Missed,
}

/// Text to token ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    specials: Specials,
    vocab_size: usize,
    notes: Vec<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Bytes,
    HuggingFace(Box<FromFile>),
}

#[derive(Clone, Debug)]
struct FromFile {
    inner: HfTokenizer,
    /// The token that unknown text becomes.
    unknown: Option<u32>,
    /// Whether characters may be left out without any token.
    may_drop: bool,
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
        let vocab_size = 261usize.next_multiple_of(VOCAB_MULTIPLE);
        Tokenizer { kind: Kind::Bytes, specials, vocab_size, notes: Vec::new() }
    }

    /// As [`Tokenizer::open`], with the special tokens under their common names (`<s>`, `<|im_end|>`,
    /// `<|image_pad|>`, ...).
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        Tokenizer::open(path, &Tokens::default())
    }

    /// Reads a `tokenizer.json`. Special tokens are those that `names` gives, the others are looked up under their
    /// common names, in both cases among the added tokens before the vocabulary. What the file would cut off, add or
    /// draw at random is switched off, which [`Tokenizer::notes`] says.
    ///
    /// # Errors
    /// When the file cannot be read, lacks special tokens (all that are missing are named), or when the image or draw
    /// token is another one too.
    pub fn open(path: &Path, names: &Tokens) -> Result<Self, DataError> {
        let fail =
            |problem: String| DataError::contents(path, format!("cannot be used as a tokenizer: {problem}"));
        let text = read_text(path).map_err(DataError::read(path))?;
        limits::check(&text).map_err(fail)?;
        let settings = Settings::read(&text);
        let mut tokenizer = guarded(|| Tokenizer::parse(&text, names, &settings)).map_err(fail)?;
        let notes = settings.notes().into_iter();
        tokenizer.notes = notes.map(|note| format!("{}: {note}", path.display())).collect();
        Ok(tokenizer)
    }

    /// Without notes.
    fn parse(text: &str, names: &Tokens, settings: &Settings) -> Result<Self, String> {
        let mut inner: HfTokenizer =
            text.parse().map_err(|e| format!("not a tokenizer.json of the tokenizers library ({e})"))?;
        settings::switch_off(&mut inner)?;
        // A caption that happens to contain `</s>` must not end the sample: special tokens come from us alone.
        inner.set_encode_special_tokens(true);
        let unknown = settings.unknown(&inner);
        let chosen = names::find(&inner, names, unknown)?;
        let special = |token: &names::Chosen| AddedToken::from(token.name.clone(), true);
        inner.add_special_tokens(&chosen.iter().filter(|token| token.added).map(special).collect::<Vec<_>>());
        let [pad, bos, eos, image, draw] = chosen.map(|token| token.id);
        // Ids may have gaps: the size is the largest id + 1, not the number of entries.
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        let may_drop = settings.may_drop(&inner);
        Ok(Tokenizer {
            kind: Kind::HuggingFace(Box::new(FromFile { inner, unknown, may_drop })),
            specials: Specials { pad, bos, eos, image, draw },
            vocab_size: (largest + 1).next_multiple_of(VOCAB_MULTIPLE),
            notes: Vec::new(),
        })
    }

    /// Rows an embedding needs: the largest id + 1, rounded up to a multiple of 8 (264 for bytes).
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Ids of the special tokens.
    pub fn specials(&self) -> Specials {
        self.specials
    }

    /// What people should know before they train with it: what of its file is switched off, and what of it changes
    /// texts. Each is a line that names the file.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The name of a token; none for one that it does not have.
    pub fn name(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Bytes => {
                let names = ["<pad>", "<bos>", "<eos>", "<image>", "<draw>"];
                let byte = u8::try_from(id).ok().map(|byte| char::from(byte).to_string());
                byte.or_else(|| Some((*names.get(id as usize - 256)?).to_owned()))
            }
            Kind::HuggingFace(file) => file.inner.id_to_token(id),
        }
    }

    /// Token ids of `text`, without special tokens before or after it; text that looks like one stays text.
    ///
    /// # Errors
    /// What the `tokenizer.json`'s own rules refuse, in its words; bytes refuse nothing.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(self.encode_counted(text)?.ids)
    }

    /// As [`Tokenizer::encode`], and how much of the text the tokens do not hold.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_counted(&self, text: &str) -> Result<Encoded, String> {
        match &self.kind {
            Kind::Bytes => Ok(Encoded { ids: text.bytes().map(u32::from).collect(), ..Encoded::default() }),
            Kind::HuggingFace(file) => file.encode(text),
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
            Kind::HuggingFace(file) => guarded(|| file.inner.decode(ids, true).map_err(|e| e.to_string())),
        }
    }
}

impl FromFile {
    fn encode(&self, text: &str) -> Result<Encoded, String> {
        // Places in the text are needed, and computed, only where something may be missing there.
        let encoding = guarded(|| {
            let encoded = match self.may_drop {
                true => self.inner.encode(text, false),
                false => self.inner.encode_fast(text, false),
            };
            encoded.map_err(|e| e.to_string())
        })?;
        let ids = encoding.get_ids().to_vec();
        let unknown = ids.iter().filter(|&&id| Some(id) == self.unknown).count() as u32;
        let dropped = if self.may_drop { dropped(text, encoding.get_offsets()) } else { 0 };
        Ok(Encoded { ids, missed: Missed { unknown, dropped } })
    }
}

/// Characters of `text`, white space aside, that lie in none of the ranges `covered` (in bytes).
fn dropped(text: &str, covered: &[(usize, usize)]) -> u32 {
    let mut held = vec![false; text.len()];
    for &(start, end) in covered {
        held[start.min(text.len())..end.clamp(start.min(text.len()), text.len())].fill(true);
    }
    text.char_indices().filter(|&(at, letter)| !held[at] && !letter.is_whitespace()).count() as u32
}
