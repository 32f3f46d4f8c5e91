//! Random data sets in every form of record and of JSON file: every character, picture and target token is accounted
//! for.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const PICTURES: [&str; 3] = ["a.png", "b.png", "sub/c.png"];
const LAYOUT: Layout = Layout { tokens_per_microbatch: 1 << 20, ..super::LAYOUT };

/// What a record says, before it is written in any form.
#[derive(Clone, Debug)]
struct Said {
    system: Option<String>,
    turns: Vec<(Vec<Bit>, String)>,
    draw: Option<usize>,
    /// Without the last answer; taken only where something is drawn.
    unanswered: bool,
    form: Form,
    /// Without marks all pictures come first.
    marked: bool,
    /// `<image>` in a text that takes no pictures is written with a backslash, though it need not be.
    escaped: bool,
    /// Which of the ways to name a picture.
    naming: usize,
}

#[derive(Clone, Debug)]
enum Bit {
    Text(String),
    Picture(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Own,
    /// `conversations` or `messages`, and whether turns have `from` and `value`.
    Chat(&'static str, bool),
    /// Messages with typed parts; whether these name pictures themselves.
    Parts(bool),
}

/// A token and whether it is learned.
type Token = (u32, bool);

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<image>"),
        Just("\\<image>"),
        Just("\\"),
        Just("<ima"),
        Just("ge>"),
        Just("<draw>"),
        Just("</s>"),
        Just("\""),
        Just("\n"),
        Just("  "),
        Just("\u{e9}"),
        Just("\u{1f600}"),
        Just("\u{feff}"),
        Just("\0"),
        Just("\u{2028}"),
        Just("abc"),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn bits() -> impl Strategy<Value = Vec<Bit>> {
    proptest::collection::vec(
        prop_oneof![text().prop_map(Bit::Text), (0..3usize).prop_map(Bit::Picture)],
        0..5,
    )
}

fn said() -> impl Strategy<Value = Said> {
    let form = prop_oneof![
        2 => Just(Form::Own),
        1 => Just(Form::Chat("conversations", true)),
        1 => Just(Form::Chat("conversations", false)),
        1 => Just(Form::Chat("messages", false)),
        2 => any::<bool>().prop_map(Form::Parts),
    ];
    (
        proptest::option::of(text()),
        proptest::collection::vec((bits(), text()), 1..4),
        proptest::option::of(0..3usize),
        any::<[bool; 3]>(),
        form,
        0..4usize,
    )
        .prop_map(|(system, turns, draw, [unanswered, marked, escaped], form, naming)| {
            let turns = turns.into_iter().map(|(bits, answer)| (tidy(bits), answer)).collect();
            Said { system, turns, draw, unanswered, form, marked, escaped, naming }
        })
}

/// Joins neighbouring texts, and keeps a backslash off a picture: before a mark it would make that text.
fn tidy(bits: Vec<Bit>) -> Vec<Bit> {
    let mut tidied: Vec<Bit> = Vec::new();
    for bit in bits {
        match (tidied.last_mut(), bit) {
            (Some(Bit::Text(before)), Bit::Text(text)) => before.push_str(&text),
            (Some(Bit::Text(before)), Bit::Picture(picture)) if before.ends_with('\\') => {
                before.push('.');
                tidied.push(Bit::Picture(picture));
            }
            (_, bit) => tidied.push(bit),
        }
    }
    tidied
}

fn escape(text: &str) -> String {
    text.replace("<image>", "\\<image>")
}

impl Said {
    fn pictures(&self) -> Vec<usize> {
        let bits = self.turns.iter().flat_map(|(bits, _)| bits);
        bits.filter_map(|bit| if let Bit::Picture(i) = bit { Some(*i) } else { None }).collect()
    }

    fn is_unanswered(&self) -> bool {
        self.unanswered && self.draw.is_some()
    }

    /// A text in which `<image>` is text anyhow.
    fn free(&self, text: &str) -> String {
        // Pictures without marks make a bare one in an answer ambiguous.
        let needed = text.contains("\\<image>") || !(self.marked || self.pictures().is_empty());
        if self.escaped || needed { escape(text) } else { text.to_owned() }
    }

    fn marked_text(&self, bits: &[Bit]) -> String {
        if self.marked {
            let write = |bit: &Bit| match bit {
                Bit::Text(text) => escape(text),
                Bit::Picture(_) => "<image>".to_owned(),
            };
            return bits.iter().map(write).collect();
        }
        // Without the picture between them two texts are one, in which a mark may come together.
        let texts =
            bits.iter().filter_map(|bit| if let Bit::Text(text) = bit { Some(text.as_str()) } else { None });
        escape(&texts.collect::<String>())
    }

    fn parts(&self, bits: &[Bit], names: bool) -> Value {
        let pictured = self.marked && bits.iter().any(|bit| matches!(bit, Bit::Picture(_)));
        let part = |bit: &Bit| match bit {
            Bit::Text(text) if pictured => json!({"type": "text", "text": self.free(text)}),
            Bit::Text(text) => json!({"type": "text", "text": escape(text)}),
            Bit::Picture(_) if !names => json!({"type": "image"}),
            Bit::Picture(i) => match self.naming {
                0 => json!({"type": "image", "image": PICTURES[*i]}),
                1 => json!({"type": "image", "path": PICTURES[*i], "text": null}),
                2 => json!({"type": "image_url", "image_url": {"url": PICTURES[*i]}}),
                _ => json!({"type": "image", "image": {"path": PICTURES[*i], "bytes": null}}),
            },
        };
        bits.iter().filter(|bit| self.marked || matches!(bit, Bit::Text(_))).map(part).collect()
    }

    fn write(&self) -> Value {
        let mut object = Map::new();
        let pictures = self.pictures();
        let names = self.form == Form::Parts(true) && self.marked;
        if !pictures.is_empty() && !names {
            let paths: Vec<&str> = pictures.iter().map(|&i| PICTURES[i]).collect();
            let (key, value) = match (self.naming, paths.as_slice()) {
                (0, [only]) => ("image", json!(only)),
                (1, [only]) => ("file_name", json!(only)),
                (2, paths) => ("file_names", json!(paths)),
                (_, paths) => ("images", paths.iter().map(|path| json!({"path": path})).collect()),
            };
            object.insert(key.into(), value);
        }
        if let Some(draw) = self.draw {
            object.insert("draw".into(), PICTURES[draw].into());
        }
        if self.form == Form::Own {
            let (prompt, _) = &self.turns[0];
            object.insert("prompt".into(), self.marked_text(prompt).into());
            object.insert("text".into(), escape(&self.own_text()).into());
            return object.into();
        }
        let (list, role, content, human, answer) = match self.form {
            Form::Chat(list, true) => (list, "from", "value", "human", "gpt"),
            Form::Chat(list, false) => (list, "role", "content", "user", "assistant"),
            _ => ("messages", "role", "content", "user", "assistant"),
        };
        let mut turns = Vec::new();
        if let Some(system) = &self.system {
            if self.escaped {
                object.insert("system".into(), escape(system).into());
            } else {
                turns.push(json!({role: "system", content: escape(system)}));
            }
        }
        for (bits, said) in &self.turns {
            let question = match self.form {
                Form::Parts(names) => self.parts(bits, names),
                _ => self.marked_text(bits).into(),
            };
            turns.push(json!({role: human, content: question}));
            turns.push(json!({role: answer, content: self.free(said)}));
        }
        if self.is_unanswered() {
            turns.pop();
        }
        object.insert(list.into(), turns.into());
        object.into()
    }

    /// The learned text of BigMac's own form; not empty, as something must be learned.
    fn own_text(&self) -> String {
        format!("x{}", self.turns[0].1)
    }

    /// The tokens that must come out, after `<bos>`, and the pictures.
    fn wanted(&self) -> (Vec<Token>, Vec<&'static str>) {
        let specials = Tokenizer::bytes().specials();
        let mut tokens: Vec<Token> = Vec::new();
        let text = |tokens: &mut Vec<Token>, text: &str, learned| {
            tokens.extend(text.bytes().map(|byte| (u32::from(byte), learned)));
        };
        let own = self.form == Form::Own;
        let turns = if own { &self.turns[..1] } else { &self.turns[..] };
        if let Some(system) =
            self.system.as_ref().filter(|system| !(own || self.escaped && system.is_empty()))
        {
            text(&mut tokens, &format!("{system} "), false);
        }
        for (i, (bits, answer)) in turns.iter().enumerate() {
            if !own {
                text(&mut tokens, "USER: ", false);
            }
            if i == 0 && !self.marked {
                tokens.extend(self.pictures().iter().map(|_| (specials.image, false)));
            }
            for bit in bits {
                match bit {
                    Bit::Text(words) => text(&mut tokens, words, false),
                    Bit::Picture(_) if self.marked => tokens.push((specials.image, false)),
                    Bit::Picture(_) => {}
                }
            }
            let last = i + 1 == turns.len();
            if own {
                text(&mut tokens, &self.own_text(), true);
            } else {
                text(&mut tokens, " ASSISTANT:", false);
                if !(last && self.is_unanswered()) {
                    text(&mut tokens, &format!(" {answer}"), true);
                }
            }
            match self.draw {
                Some(_) if last => tokens.push((specials.draw, true)),
                _ => tokens.push((specials.eos, true)),
            }
        }
        (tokens, self.pictures().iter().map(|&i| PICTURES[i]).collect())
    }
}

/// JSON with everything outside ASCII escaped, as Python's json writes it.
fn ascii(json: &str) -> String {
    let escape =
        |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    json.chars().map(|c| if c.is_ascii() { c.to_string() } else { escape(c) }).collect()
}

fn file(records: &[Value], layout: usize) -> (&'static str, String) {
    let lines = records.iter().map(Value::to_string);
    match layout {
        0 => ("train.jsonl", lines.collect::<Vec<_>>().join("\n")),
        1 => ("train.jsonl", format!("\u{feff}{}\r\n", ascii(&lines.collect::<Vec<_>>().join("\r\n\r\n")))),
        2 => ("train.json", serde_json::to_string_pretty(records).unwrap()),
        3 => ("train.json", format!("\u{feff}\n {}\n\n", ascii(&json!(records).to_string()))),
        _ => ("metadata.jsonl", lines.map(|line| line + "\n").collect()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the bytes are, reading ends, and says of each record what it is or what is wrong.
    #[test]
    fn damaged_files_are_read_to_their_end(
        all in proptest::collection::vec(said(), 1..4),
        layout in 0..5usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let records: Vec<Value> = all.iter().map(Said::write).collect();
        let (name, contents) = file(&records, layout);
        let mut bytes = contents.into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + bytes.len() / 2);
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let set = Set::new(name, bytes);
        let files = DatasetFiles::find(set.folder.path(), "train").unwrap();
        let read: Vec<_> = files.records(None).collect();
        prop_assert!(read.len() <= lines + 1 + all.len(), "{} records", read.len());
        for error in read.into_iter().filter_map(Result::err) {
            prop_assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn every_character_picture_and_target_is_accounted_for(
        mut all in proptest::collection::vec(said(), 1..6),
        layout in 0..5usize,
    ) {
        for said in all.iter_mut().filter(|said| said.form == Form::Own) {
            said.turns.truncate(1);
        }
        let records: Vec<Value> = all.iter().map(Said::write).collect();
        let (name, contents) = file(&records, layout);
        let set = Set::new(name, &contents);
        let data = set.load_with(&LAYOUT).map_err(|error| TestCaseError::fail(format!("{error}\n{contents}")))?;
        prop_assert_eq!(data.len(), all.len());
        for (sample, said) in data.samples.iter().zip(&all) {
            let (tokens, pictures) = said.wanted();
            let learned = |i: usize| sample.learned.iter().any(|range| range.contains(&(i as u32)));
            let got = sample.tokens.iter().enumerate().skip(1).map(|(i, &token)| (token, learned(i)));
            prop_assert_eq!(&got.collect::<Vec<Token>>(), &tokens, "{:?}\n{}", said, contents);
            let targets = tokens.iter().filter(|(_, learned)| *learned).count();
            prop_assert_eq!(sample.target_tokens as usize, targets);
            let path = |picture: &PictureRef| set.name_of(picture);
            let read: Vec<PathBuf> = sample.images.iter().map(|image| path(&image.picture)).collect();
            prop_assert_eq!(read, pictures.iter().map(PathBuf::from).collect::<Vec<_>>());
            prop_assert_eq!(sample.draw.as_ref().map(path), said.draw.map(|i| PathBuf::from(PICTURES[i])));
        }
    }
}
