//! Which tokens of a `tokenizer.json` are the special ones.

use crate::config::Tokens;
use bigmac_schedule::names::{hint, nearest};
use tokenizers::Tokenizer as HfTokenizer;

/// Added tokens that a message lists.
const LISTED: usize = 8;

/// A special token: its key in `data.tokens`, and the names that are common for it.
struct Special {
    key: &'static str,
    common: &'static [&'static str],
}

const SPECIALS: [Special; 5] = [
    Special {
        key: "pad",
        common: &["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>"],
    },
    Special { key: "bos", common: &["<bos>", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>"] },
    Special { key: "eos", common: &["<eos>", "</s>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"] },
    Special { key: "image", common: &["<image>", "<|image_pad|>", "<|image|>", "<image_pad>"] },
    Special { key: "draw", common: &["<draw>", "<|draw|>"] },
];

/// A token that was found.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    /// Its id.
    pub id: u32,
    /// As the file spells it.
    pub name: String,
    /// It is one of the added tokens, so that no text becomes it by itself.
    pub added: bool,
}

/// Pad, bos, eos, image, draw: as `names` gives them, or under their common names.
///
/// # Errors
/// For a name that is not a token; for all that were not found; where the image or draw token, which say what a place
/// is, stand for something else too.
pub(super) fn find(inner: &HfTokenizer, names: &Tokens, unknown: Option<u32>) -> Result<[Chosen; 5], String> {
    let mut added: Vec<(u32, String)> =
        inner.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.content)).collect();
    added.sort();
    let among_added = |name: &str| {
        let (id, name) = added.iter().find(|(_, content)| content == name)?;
        Some(Chosen { id: *id, name: name.clone(), added: true })
    };
    let in_vocabulary = |name: &str| {
        let id = inner.token_to_id(name)?;
        Some(Chosen { id, name: name.to_owned(), added: false })
    };
    let given = [&names.pad, &names.bos, &names.eos, &names.image, &names.draw];
    let mut found = Vec::with_capacity(SPECIALS.len());
    let mut missing = Vec::new();
    for (special, given) in SPECIALS.iter().zip(given) {
        let common = special.common.iter();
        let chosen = match given.as_str() {
            "" => common
                .clone()
                .find_map(|n| among_added(n))
                .or_else(|| common.clone().find_map(|n| in_vocabulary(n))),
            name => Some(
                among_added(name)
                    .or_else(|| in_vocabulary(name))
                    .ok_or_else(|| not_a_token(special.key, name, &added))?,
            ),
        };
        match chosen {
            Some(chosen) => found.push(chosen),
            None => missing.push(special),
        }
    }
    let Ok(found) = <[Chosen; 5]>::try_from(found) else {
        return Err(not_found(&missing, &added));
    };
    check_distinct(&found, unknown)?;
    Ok(found)
}

/// A picture's place must be told from text and from other marks.
fn check_distinct(found: &[Chosen; 5], unknown: Option<u32>) -> Result<(), String> {
    for (i, mark) in found.iter().enumerate().filter(|(i, _)| matches!(SPECIALS[*i].key, "image" | "draw")) {
        let key = SPECIALS[i].key;
        let other =
            found.iter().zip(&SPECIALS).find(|(other, special)| other.id == mark.id && special.key != key);
        let is = match other {
            Some((_, special)) => format!("that of data.tokens.{} too", special.key),
            None if unknown == Some(mark.id) => "what unknown text becomes too".to_owned(),
            None => continue,
        };
        return Err(format!(
            "data.tokens.{key} is the token '{}', which is {is}; give it a token of its own",
            mark.name
        ));
    }
    Ok(())
}

fn not_a_token(key: &str, name: &str, added: &[(u32, String)]) -> String {
    let hint = hint(nearest(name, added.iter().map(|(_, content)| content.as_str())));
    format!("data.tokens.{key} = '{name}' is not one of its tokens{hint}{}", listed(added))
}

fn not_found(missing: &[&Special], added: &[(u32, String)]) -> String {
    let looked: Vec<String> = missing
        .iter()
        .map(|special| format!("{} (looked for {})", special.key, special.common.join(", ")))
        .collect();
    let keys: Vec<String> = missing.iter().map(|special| format!("data.tokens.{}", special.key)).collect();
    format!(
        "special tokens are missing: {}; set {} to tokens that no text needs, as in --set {}=NAME, or add them to the \
         file's added_tokens{}",
        looked.join("; "),
        keys.join(" and "),
        keys[0],
        listed(added)
    )
}

/// What a message says of the added tokens.
fn listed(added: &[(u32, String)]) -> String {
    let names: Vec<String> = added.iter().take(LISTED).map(|(_, content)| format!("'{content}'")).collect();
    let more = added.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match names.is_empty() {
        true => "; it has no added tokens".to_owned(),
        false => format!("; its added tokens are {}{more}", names.join(", ")),
    }
}
