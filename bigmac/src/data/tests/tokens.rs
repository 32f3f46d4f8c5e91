use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A word-level `tokenizer.json` with these special tokens.
fn file(specials: &[&str]) -> tempfile::NamedTempFile {
    let words = ["[UNK]", "a", "red", "cat"];
    let vocab: serde_json::Map<_, _> =
        words.iter().chain(specials).enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(i, s)| {
            serde_json::json!({"id": i + words.len(), "content": s, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.to_string().as_bytes()).unwrap();
    file
}

#[test]
fn bytes_have_a_vocabulary_of_264() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.vocab_size(), 264);
    assert_eq!(tokenizer.specials(), Specials { pad: 256, bos: 257, eos: 258, image: 259, draw: 260 });
    assert_eq!(tokenizer.encode("h\u{e9}").unwrap(), [104, 195, 169]);
    assert_eq!(tokenizer.decode(&[257, 104, 105, 259, 258, 263, 4_000_000]).unwrap(), "hi");
    assert_eq!(tokenizer.decode(&[104, 195]).unwrap(), "h\u{fffd}");
}

#[test]
fn a_tokenizer_json_is_read_and_its_specials_found() {
    let file = file(&["<pad>", "<s>", "</s>", "<image>", "<draw>"]);
    let tokenizer = Tokenizer::from_file(file.path()).unwrap();
    assert_eq!(tokenizer.specials(), Specials { pad: 4, bos: 5, eos: 6, image: 7, draw: 8 });
    assert_eq!(tokenizer.vocab_size(), 16);
    assert_eq!(tokenizer.encode("a red cat").unwrap(), [1, 2, 3]);
    assert_eq!(tokenizer.decode(&[5, 2, 3, 6]).unwrap(), "red cat");
    // A text that spells a special token does not become one.
    assert!(!tokenizer.encode("a </s> <draw>").unwrap().iter().any(|id| (4..=8).contains(id)));
}

#[test]
fn missing_specials_are_named_all_at_once() {
    let few = file(&["<|endoftext|>", "<|im_end|>", "<|vision_start|>"]);
    let error = Tokenizer::from_file(few.path()).unwrap_err().to_string();
    assert!(
        error.contains("special tokens are missing: image (looked for <image>, <|image_pad|>,"),
        "{error}"
    );
    assert!(error.contains("; draw (looked for <draw>, <|draw|>)"), "{error}");
    // One token may pad and begin.
    let all = file(&["<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|draw|>"]);
    let specials = Tokenizer::from_file(all.path()).unwrap().specials();
    assert_eq!(specials, Specials { pad: 4, bos: 4, eos: 5, image: 6, draw: 7 });
}

#[test]
fn a_file_that_is_no_tokenizer_is_an_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{}").unwrap();
    let error = Tokenizer::from_file(file.path()).unwrap_err().to_string();
    assert!(error.contains("not a tokenizer.json"), "{error}");
    let nowhere = std::path::Path::new("/no/such/tokenizer.json");
    assert!(Tokenizer::from_file(nowhere).unwrap_err().to_string().contains("/no/such"));
}

proptest! {
    #[test]
    fn any_text_survives_bytes(text in ".{0,60}") {
        let tokenizer = Tokenizer::bytes();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| id < 256));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}
