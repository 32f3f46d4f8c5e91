//! JSON files: encodings, ends, doubled keys, and what is left out on request.

use super::*;

/// What reading a file as a data set gives: texts of records and errors, in order.
fn read(name: &str, contents: impl AsRef<[u8]>) -> Vec<String> {
    let set = Set::new(name, contents);
    let files = DatasetFiles::find(&set.path(name), "train").unwrap();
    let told = |error: DataError| error.to_string().replace(&format!("{}/", set.folder.path().display()), "");
    let text = |record: Record| match record.segments.as_slice() {
        [Segment::Text { text, .. }, Segment::End] => text.clone(),
        other => panic!("{other:?}"),
    };
    files.records(None).map(|record| record.map_or_else(told, text)).collect()
}

#[test]
fn a_byte_order_mark_is_no_text() {
    assert_eq!(
        read("x.jsonl", "\u{feff}{\"text\":\"one\"}\n\u{feff}{\"text\":\"\u{feff}two\"}\n\u{feff}\n"),
        ["one", "\u{feff}two"]
    );
    assert_eq!(read("x.json", "\u{feff}[{\"text\":\"one\"},{\"text\":\"two\"}]\n"), ["one", "two"]);
    assert_eq!(read("x.json", "\u{feff}\n\n [{\"text\":\"one\"}]"), ["one"]);
    assert!(read("x.json", "\u{feff}").is_empty());
}

#[test]
fn another_encoding_is_named() {
    let utf16 = |text: &str, mark: bool| -> Vec<u8> {
        mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    for mark in [true, false] {
        for text in ["[{\"text\": \"x\"}]", "{\"text\": \"x\"}"] {
            assert_eq!(read("x.json", utf16(text, mark)), ["x.json is UTF-16 text; save it as UTF-8"]);
        }
    }
    let swapped: Vec<u8> = utf16("[1]", true).chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    assert_eq!(read("x.json", swapped), ["x.json is UTF-16 text; save it as UTF-8"]);
    assert_eq!(
        read("x.json", b"[\n{\"text\": \"\xe9\"}]"),
        ["x.json:2: not UTF-8 text; save the file as UTF-8"]
    );
    assert_eq!(read("x.jsonl", b"\x1f\x8b\x08\0"), ["x.jsonl is compressed (gzip); unpack it"]);
    assert!(read("x.csv", "file_name,text\n")[0].contains("is a .csv file, which is not read"));
}

#[test]
fn an_array_is_read_to_its_end() {
    for (text, wanted) in [
        ("[{\"text\": \"a\"}]\n\n", &["a"][..]),
        ("[{\"text\": \"a\"}]\n[{\"text\": \"b\"}]", &["a", "x.json:2: not JSON (more after the end"]),
        ("[{\"text\": \"a\"}],", &["a", "x.json:1: not JSON (more after the end"]),
        ("[]]", &["x.json:1: not JSON (more after the end"]),
        ("[{\"text\": \"a\"},\n]", &["a", "x.json:2: not JSON (a comma before the end"]),
        ("[{\"text\": \"a\"}", &["x.json:1: not JSON (the array is not closed"]),
        ("[{\"text\": \"a\"}\n{\"text\": \"b\"}]", &["x.json:2: not JSON (the array is not closed"]),
        ("[", &["x.json:1: not JSON (the array is not closed"]),
        ("[\n{\"text\": \"a\"},\n{\n\"text\": b}]", &["a", "x.json:4: not JSON (expected value"]),
        // What is wrong inside an element does not end the array.
        (
            "[{\"text\": 1},\n7,\n{\"text\": \"\\ud800\"},\n{\"text\": \"a\"}]",
            &[
                "x.json:1: 'text' is a number",
                "x.json:2: a number, where an object",
                "x.json:3: not JSON (",
                "a",
            ],
        ),
    ] {
        let got = read("x.json", text);
        assert_eq!(got.len(), wanted.len(), "{text:?}: {got:?}");
        assert!(got.iter().zip(wanted).all(|(got, wanted)| got.starts_with(wanted)), "{text:?}: {got:?}");
    }
}

#[test]
fn an_object_over_several_lines_is_named() {
    let wrapped = "{\n\"version\": 1,\n\"data\": [{\"text\": \"a\"}, {\"text\": \"b\"}]}";
    let [error] = &read("x.json", wrapped)[..] else { panic!("more than one") };
    assert!(
        error.starts_with("x.json:1: an object over several lines; expected a list of records"),
        "{error}"
    );
    assert!(error.contains("its key 'data' holds a list of objects"), "{error}");
    let pretty = "{\n\"text\": \"a\"\n}\n{\n\"text\": \"b\"\n}";
    let [error] = &read("x.jsonl", pretty)[..] else { panic!("more than one") };
    assert!(error.ends_with("or one record a line"), "{error}");
    // A line that was cut is not such an object.
    let got = read("x.jsonl", "{\"text\": \"a\n{\"text\": \"b\"}");
    assert!(got[0].starts_with("x.jsonl:1: not JSON") && got[1] == "b", "{got:?}");
    assert!(read("x.json", "{\"data\": [{\"text\": \"a\"}]}")[0].contains("it holds a list of 1 objects"));
}

#[test]
fn a_key_that_comes_twice_is_an_error() {
    let lines = [
        r#"{"text": "a", "text": "b"}"#,
        r#"{"text": "c"}"#,
        r#"{"messages": [{"role": "user", "content": "q", "content": "r"}]}"#,
        r#"{"text": "a", "t\u0065xt": "b"}"#,
    ];
    for (name, text) in [("x.jsonl", lines.join("\n")), ("x.json", format!("[{}]", lines.join(",\n")))] {
        let got = read(name, text);
        for (i, key) in [(0, "text"), (2, "content"), (3, "text")] {
            let wanted = format!("{name}:{}: key '{key}' comes twice in one object", i + 1);
            assert!(got[i].starts_with(&wanted), "{got:?}");
        }
        assert_eq!((got.len(), got[1].as_str()), (4, "c"));
    }
}

#[test]
fn lines_are_counted_through_blank_ones() {
    let blank = "\n".repeat(20_000);
    let got = read("x.jsonl", format!("{blank}  {{\"text\": 1}}\n\n{{\"text\": 2}}"));
    assert!(got[0].starts_with("x.jsonl:20001: ") && got[1].starts_with("x.jsonl:20003: "), "{got:?}");
    let got = read("x.json", format!("{blank}[\n{{\"text\": 1}}]"));
    assert!(got[0].starts_with("x.json:20002: "), "{got:?}");
}

fn skipping(set: &Set) -> Result<Dataset, DataError> {
    let options = ReadOptions { tokenizer: Tokenizer::bytes(), layout: LAYOUT, images: None, skip: true };
    Dataset::load(set.folder.path(), "train", &options)
}

#[test]
fn records_that_cannot_be_used_are_left_out_on_request_and_named() {
    let long = format!(r#"{{"text": "{}"}}"#, "x".repeat(100));
    let set = Set::lines(&[
        "bad",
        r#"{"text": "a"}"#,
        r#"{"text": "b", "image": "no.png"}"#,
        &long,
        r#"{"text": "c"}"#,
    ]);
    let data = skipping(&set).unwrap();
    assert_eq!((data.len(), data.samples[1].place.clone()), (2, Place::Line(5)));
    let told: Vec<String> = data.skipped.iter().map(DataError::to_string).collect();
    let starts = ["train.jsonl:1: not JSON", "train.jsonl:3: picture", "train.jsonl:4: 102 tokens"];
    assert_eq!(told.len(), 3);
    assert!(told.iter().zip(starts).all(|(told, start)| told.contains(start)), "{told:?}");
    assert!(set.error().starts_with("train.jsonl:1: not JSON"));
    // Nothing left, or no telling how much is lost.
    let error = skipping(&Set::lines(&["bad", "{}"])).unwrap_err().to_string();
    assert!(
        error.contains("holds no sample that can be used: 2 are wrong; the first: ")
            && error.contains(":1: not JSON")
    );
    let error = skipping(&Set::new("train.json", r#"[{"text": "a"}, {"#)).unwrap_err().to_string();
    assert!(error.contains("train.json:1: not JSON"), "{error}");
    assert!(Set::lines(&[r#"{"text": "a"}"#]).load().unwrap().skipped.is_empty());
}

/// As many as open in under two seconds in a release build.
const RECORDS: usize = 100_000;

/// Opening costs what the text costs, whatever the pictures hold: here they are many, and no picture at all.
#[test]
fn pictures_are_not_read_when_a_set_is_opened() {
    let set = Set::lines(&[]);
    std::fs::write(set.path("c.png"), b"no picture").unwrap();
    let line =
        |i| format!(r#"{{"prompt": "<image>{i}", "text": "a", "images": ["c.png"], "draw": "c.png"}}"#);
    let lines: Vec<String> = (0..RECORDS).map(line).collect();
    std::fs::write(set.path("train.jsonl"), lines.join("\n")).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(set.load().unwrap().len(), RECORDS);
    println!("{RECORDS} records opened in {:.2} s", begun.elapsed().as_secs_f64());
}
