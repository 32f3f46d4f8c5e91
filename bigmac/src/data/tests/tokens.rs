use super::*;
use crate::config::Tokens;
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

#[test]
fn an_added_token_without_end_is_refused_before_an_automaton_is_built_over_it() {
    let long = "x".repeat(1_000_000);
    let many = file(&["<pad>", "<s>", "</s>", "<image>", "<draw>", &long]);
    let error = Tokenizer::from_file(many.path()).unwrap_err().to_string();
    assert!(error.contains("added token 5 is 1000000 bytes long, expected at most 1024"), "{error}");
    let just = "x".repeat(1024);
    let file = file(&["<pad>", "<s>", "</s>", "<image>", "<draw>", &just]);
    assert!(Tokenizer::from_file(file.path()).is_ok());
}

/// A file of these words, whose vocabulary or another part is changed.
fn changed(part: &str, value: serde_json::Value) -> Result<Tokenizer, String> {
    let whole = file(&["<pad>", "<s>", "</s>", "<image>", "<draw>"]);
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(whole.path()).unwrap()).unwrap();
    *json.pointer_mut(part).unwrap() = value;
    std::fs::write(whole.path(), json.to_string()).unwrap();
    Tokenizer::from_file(whole.path()).map_err(|error| error.to_string())
}

#[test]
fn ids_that_two_tokens_share_or_that_32_bits_hold_hardly_are_errors() {
    let shared = changed("/model/vocab/red", 3.into()).unwrap_err();
    assert!(shared.contains("the tokens 'cat' and 'red' have the same id 3"), "{shared}");
    for part in ["/model/vocab/red", "/added_tokens/1/id"] {
        let large = changed(part, u32::MAX.into()).unwrap_err();
        assert!(large.contains("is larger than 2147483647"), "{large}");
    }
    assert!(changed("/model/vocab/red", 9.into()).is_ok());
}

#[test]
fn a_file_at_which_the_library_panics_is_an_error() {
    let error = changed("/decoder", serde_json::json!({"type": {}})).unwrap_err();
    assert!(error.contains("cannot be used as a tokenizer"), "{error}");
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

/// A `tokenizer.json` of byte-level BPE without merges, changed by `change`: every letter becomes one token.
fn byte_level(change: impl Fn(&mut serde_json::Value)) -> tempfile::NamedTempFile {
    let mut letters: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let specials = ["<pad>", "<s>", "</s>", "<image>", "<draw>"];
    let vocab: serde_json::Map<_, _> = letters
        .iter()
        .map(char::to_string)
        .chain(["<odd>".into()])
        .enumerate()
        .map(|(i, w)| (w, i.into()))
        .collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(i, s)| {
            serde_json::json!({"id": i + vocab.len(), "content": s, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let mut json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []}});
    change(&mut json);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.to_string().as_bytes()).unwrap();
    file
}

#[test]
fn what_would_cut_pad_or_draw_at_random_is_switched_off_and_said() {
    let text = "a long text about a red cat in a box";
    let plain = Tokenizer::from_file(byte_level(|_| ()).path()).unwrap();
    assert!(plain.notes().is_empty(), "{:?}", plain.notes());
    assert_eq!(plain.encode(text).unwrap().len(), text.len());
    let file = byte_level(|json| {
        json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 257, "pad_type_id": 0, "pad_token": "<pad>"});
        json["model"]["merges"] = serde_json::json!([["a", "b"], ["Ġ", "a"], ["r", "e"]]);
        for (i, merged) in ["ab", "Ġa", "re"].iter().enumerate() {
            json["model"]["vocab"][merged] = serde_json::json!(300 + i);
        }
        json["model"]["dropout"] = serde_json::json!(0.5);
    });
    let tokenizer = Tokenizer::from_file(file.path()).unwrap();
    let all: Vec<Vec<u32>> = (0..20).map(|_| tokenizer.encode(text).unwrap()).collect();
    assert!(all.iter().all(|ids| *ids == all[0]), "tokens are drawn at random");
    assert_eq!(tokenizer.decode(&all[0]).unwrap(), text);
    assert!(all[0].contains(&301) && !all[0].contains(&257));
    let name = file.path().display().to_string();
    assert!(tokenizer.notes().iter().all(|note| note.starts_with(&name)));
    let said = tokenizer.notes().join("\n");
    for wanted in [
        "truncation to 8 tokens is switched off",
        "padding is switched off",
        "dropout of 0.5 is switched off",
    ] {
        assert_eq!(said.matches(wanted).count(), 1, "{said}");
    }
}

#[test]
fn what_changes_texts_is_said() {
    let file = byte_level(|json| {
        json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"},
            {"type": "Strip", "strip_left": true, "strip_right": true}]});
    });
    let tokenizer = Tokenizer::from_file(file.path()).unwrap();
    assert_eq!(tokenizer.notes().len(), 1);
    assert!(
        tokenizer.notes()[0].contains("its normalizer (Lowercase, Strip) changes texts"),
        "{:?}",
        tokenizer.notes()
    );
    let words = file_of_words();
    let notes = Tokenizer::from_file(words.path()).unwrap().notes().join("\n");
    assert!(notes.contains("its pre-tokenizer (Whitespace) drops white space"), "{notes}");
}

fn file_of_words() -> tempfile::NamedTempFile {
    file(&["<pad>", "<s>", "</s>", "<image>", "<draw>"])
}

#[test]
fn text_that_the_tokenizer_does_not_know_is_counted() {
    let words = Tokenizer::from_file(file_of_words().path()).unwrap();
    assert_eq!(words.encode_counted("a red cat").unwrap().missed, Missed::default());
    assert_eq!(words.encode_counted("a red dog, dog").unwrap().missed, Missed { unknown: 3, dropped: 0 });
    // A BPE without an unknown token leaves out what it does not know.
    let few = byte_level(|json| {
        json["pre_tokenizer"] = serde_json::Value::Null;
        json["decoder"] = serde_json::Value::Null;
    });
    let few = Tokenizer::from_file(few.path()).unwrap();
    let encoded = few.encode_counted("a\u{65e5}\u{672c}b").unwrap();
    assert_eq!((encoded.ids.len(), encoded.missed), (2, Missed { unknown: 0, dropped: 2 }));
    // What a pre-tokenizer removes.
    let removing = byte_level(|json| {
        json["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false},
            json["pre_tokenizer"].clone()]});
    });
    let removing = Tokenizer::from_file(removing.path()).unwrap();
    assert_eq!(removing.encode_counted("a-b c-").unwrap().missed, Missed { unknown: 0, dropped: 2 });
    let whole = Tokenizer::from_file(byte_level(|_| ()).path()).unwrap();
    assert!(whole.encode_counted("\u{65e5}-\u{1f408} \n\0").unwrap().missed.is_none());
}

#[test]
fn a_data_set_tells_what_is_not_known() {
    let lines = [r#"{"text": "a red cat"}"#, r#"{"text": "a dog"}"#, r#"{"text": "dog dog", "id": 1}"#];
    let set = Set::lines(&lines);
    let tokenizer = Tokenizer::from_file(file_of_words().path()).unwrap();
    let options = ReadOptions { tokenizer, layout: LAYOUT, images: None, skip: false };
    let data = Dataset::load(set.folder.path(), TRAIN, &options).unwrap();
    let note = data.note().unwrap();
    let wanted = "train.jsonl: the tokenizer does not know all text in 2 of 3 samples: 3 tokens are the unknown one, first \
                  at ";
    assert!(note.contains(wanted) && note.contains("train.jsonl:2;"), "{note}");
    let look = InspectOptions { decode_pictures: true, shown: 0 };
    let found = inspect(set.folder.path(), TRAIN, &options, look, &|_| ()).unwrap();
    assert_eq!((found.unknown_tokens, found.dropped_characters), (3, 0));
    assert_eq!(found.warnings, [note]);
    assert!(set.load().unwrap().note().is_none());
}

/// `data.tokens` with some keys set.
fn named(names: &[(&str, &str)]) -> Tokens {
    let mut tokens = Tokens::default();
    for (key, name) in names {
        let slot = match *key {
            "pad" => &mut tokens.pad,
            "bos" => &mut tokens.bos,
            "eos" => &mut tokens.eos,
            "image" => &mut tokens.image,
            _ => &mut tokens.draw,
        };
        *slot = (*name).to_owned();
    }
    tokens
}

#[test]
fn special_tokens_are_those_that_are_named() {
    let few = file(&["<pad>", "<s>", "</s>", "<image>", "<paint>"]);
    let open = |names: &[(&str, &str)]| Tokenizer::open(few.path(), &named(names)).map_err(|e| e.to_string());
    let error = open(&[]).unwrap_err();
    assert!(error.contains("draw (looked for <draw>, <|draw|>); set data.tokens.draw to tokens"), "{error}");
    assert!(error.contains("--set data.tokens.draw=NAME") && error.contains("'<paint>'"), "{error}");
    let tokenizer = open(&[("draw", "<paint>"), ("pad", "</s>")]).unwrap();
    assert_eq!(tokenizer.specials(), Specials { pad: 6, bos: 5, eos: 6, image: 7, draw: 8 });
    // One of the vocabulary.
    assert_eq!(open(&[("draw", "cat")]).unwrap().specials().draw, 3);
    let error = open(&[("draw", "<paimt>")]).unwrap_err();
    assert!(
        error.contains("data.tokens.draw = '<paimt>' is not one of its tokens (did you mean '<paint>'?)"),
        "{error}"
    );
    for (names, wanted) in [
        (
            &[("draw", "<image>")][..],
            "data.tokens.image is the token '<image>', which is that of data.tokens.draw too",
        ),
        (&[("draw", "</s>")], "data.tokens.draw is the token '</s>', which is that of data.tokens.eos too"),
        (&[("draw", "<paint>"), ("image", "[UNK]")], "'[UNK]', which is what unknown text becomes too"),
    ] {
        let error = open(names).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn added_tokens_are_found_before_the_vocabulary() {
    // `<eos>` is the more common name, but only `</s>` is not text.
    let file = byte_level(|json| json["model"]["vocab"]["<eos>"] = 900.into());
    let tokenizer = Tokenizer::from_file(file.path()).unwrap();
    assert_eq!(tokenizer.name(tokenizer.specials().eos).unwrap(), "</s>");
}

#[test]
fn a_text_that_spells_a_special_token_stays_text() {
    // Not every file marks its special tokens as such.
    let file = byte_level(|json| {
        json["added_tokens"].as_array_mut().unwrap().iter_mut().for_each(|t| t["special"] = false.into());
    });
    let tokenizer = Tokenizer::from_file(file.path()).unwrap();
    let text = "a </s> and <image>, <draw>";
    assert_eq!(tokenizer.encode(text).unwrap().len(), text.len());
    let Specials { bos, eos, .. } = tokenizer.specials();
    let ids: Vec<u32> = [vec![bos], tokenizer.encode(text).unwrap(), vec![eos]].concat();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}

#[test]
fn a_token_of_the_vocabulary_that_ends_texts_may_not_be_in_one() {
    let set = Set::lines(&[r#"{"text": "a red cat"}"#]);
    let words = file_of_words();
    for key in ["eos", "image", "draw"] {
        let tokenizer = Tokenizer::open(words.path(), &named(&[(key, "red")])).unwrap();
        let options = ReadOptions { tokenizer, layout: LAYOUT, images: None, skip: false };
        let error = Dataset::load(set.folder.path(), TRAIN, &options).unwrap_err().to_string();
        let wanted = format!(
            "train.jsonl:1: the token 'red', which is data.tokens.{key}, is in the text \"a red cat\""
        );
        assert!(error.contains(&wanted), "{error}");
    }
}

#[test]
fn unseen_samples_keep_their_texts_as_written() {
    let set = Set::lines(&[
        r#"{"text": "A  red\n dog"}"#,
        r#"{"prompt": "a <image> cat?", "images": ["a.png"], "draw": "b.png"}"#,
    ]);
    let tokenizer = Tokenizer::from_file(file_of_words().path()).unwrap();
    let options = ReadOptions { tokenizer, layout: LAYOUT, images: None, skip: false };
    let path = set.path("train.jsonl");
    let unseen = Dataset::load(&path, HELDOUT, &options).unwrap();
    let written = |i: usize| unseen.samples[i].written.as_deref().unwrap();
    assert_eq!(written(0).answer, "A  red\n dog");
    assert_eq!(written(1).description, "a  cat?");
    // What the tokens hold is something else.
    assert_ne!(options.tokenizer.decode(&unseen.samples[0].tokens).unwrap(), written(0).answer);
    let trained = Dataset::load(&path, TRAIN, &options).unwrap();
    assert!(trained.samples.iter().all(|sample| sample.written.is_none()));
}

#[test]
fn a_byte_order_mark_before_a_tokenizer_is_skipped() {
    let file = file_of_words();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), format!("\u{feff}{text}")).unwrap();
    assert_eq!(Tokenizer::from_file(file.path()).unwrap().vocab_size(), 16);
}
