use super::*;

fn one(line: &str) -> Expanded {
    Set::lines(&[line]).load().unwrap().expand(0)
}

#[test]
fn a_text_carries_loss_and_a_prompt_does_not() {
    let sample = one(r#"{"prompt": "ab", "text": "cd"}"#);
    assert_eq!(sample.tokens, ids("BabcdE"));
    assert_eq!(sample.targets, targets("..cdE."));
    assert_eq!((sample.images.len(), sample.draw_at), (0, None));
}

#[test]
fn images_take_the_places_of_their_marks() {
    let sample = one(r#"{"text": "x<image>y<image>", "images": ["a.png", "sub/c.png"]}"#);
    assert_eq!(sample.tokens, ids("BxIIIIyIIIIE"));
    assert_eq!(sample.targets, targets("x....y....E."));
    let places: Vec<_> = sample
        .images
        .iter()
        .map(|i| (i.picture.path().unwrap().file_name().unwrap(), i.rows.clone()))
        .collect();
    assert_eq!(places, [("a.png".as_ref(), 2..6), ("c.png".as_ref(), 7..11)]);
}

#[test]
fn images_without_marks_come_first() {
    let sample = one(r#"{"prompt": "p", "text": "t", "images": ["a.png", "b.png"]}"#);
    assert_eq!(sample.tokens, ids("BIIIIIIIIptE"));
    assert_eq!(sample.targets, targets(".........tE."));
}

#[test]
fn a_drawing_ends_in_its_mark_and_is_conditioned_on_all_before() {
    let sample = one(r#"{"prompt": "p<image>", "draw": "b.png", "images": "a.png"}"#);
    assert_eq!(sample.tokens, ids("BpIIIID"));
    assert_eq!(sample.targets, targets(".....D."));
    assert_eq!(sample.draw_at, Some(6));
    // Only the mark: a picture drawn from nothing.
    assert_eq!(one(r#"{"draw": "b.png"}"#).tokens, ids("BD"));
    assert_eq!(one(r#"{"draw": "b.png", "text": "t"}"#).targets, targets("tD."));
}

#[test]
fn the_split_is_found_in_a_folder() {
    let set = Set::new("train.jsonl", r#"{"text": "t"}"#);
    std::fs::write(set.path("heldout.jsonl"), r#"{"text": "h"}"#).unwrap();
    assert_eq!(find_dataset_file(set.folder.path(), "heldout").unwrap(), set.path("heldout.jsonl"));
    assert_eq!(find_dataset_file(&set.path("train.jsonl"), "heldout").unwrap(), set.path("train.jsonl"));
    let error = find_dataset_file(set.folder.path(), "test").unwrap_err().to_string();
    assert!(error.contains("has no test.jsonl (it has heldout.jsonl, train.jsonl)"), "{error}");
    // The only file there is will do for training, and for nothing else.
    let only = Set::new("captions.json", "[]");
    assert_eq!(find_dataset_file(only.folder.path(), "train").unwrap(), only.path("captions.json"));
    assert!(find_dataset_file(only.folder.path(), "heldout").is_err());
    assert!(find_dataset_file(&only.path("nowhere"), "train").unwrap_err().to_string().contains("nowhere"));
    assert!(only.error().contains("captions.json holds no sample"), "{}", only.error());
}

const LLAVA: &str = r#"[
  {"id": "1", "image": "sub/c.png", "source": "coco", "conversations": [
    {"from": "human", "value": "<image>\nq"},
    {"from": "gpt", "value": "a"},
    {"from": "human", "value": "r"},
    {"from": "gpt", "value": "bc"}]},
  {"id": "2", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
]"#;

#[test]
fn llava_files_are_read_with_loss_on_answers_only() {
    let set = Set::new("llava.json", LLAVA);
    let layout = Layout { tokens_per_microbatch: 128, ..LAYOUT };
    let data = set.load_with(&layout).unwrap();
    let specials = data.tokenizer.specials();
    let learned = |index| -> String {
        let learned = data.expand(index).targets.into_iter().filter(|&t| t != IGNORE).map(|t| t as u32);
        learned.map(|t| if t == specials.eos { '|' } else { t as u8 as char }).collect()
    };
    assert_eq!(learned(0), " a| bc|");
    assert_eq!(learned(1), " a|");
    let text: String = data.samples[0]
        .tokens
        .iter()
        .map(|&t| match t {
            t if t == specials.bos => '^',
            t if t == specials.eos => '|',
            t if t == specials.image => '#',
            t => t as u8 as char,
        })
        .collect();
    assert_eq!(text, "^USER: #\nq ASSISTANT: a|USER: r ASSISTANT: bc|");
    assert_eq!(data.samples.iter().map(|sample| sample.place.number()).collect::<Vec<_>>(), [2, 7]);
    // The same, an element a line.
    let values: Vec<serde_json::Value> = serde_json::from_str(LLAVA).unwrap();
    let lines: Vec<String> = values.iter().map(|v| v.to_string()).collect();
    let lines = Set::new("train.jsonl", lines.join("\n"));
    assert_eq!(lines.load_with(&layout).unwrap().expand(0).tokens, data.expand(0).tokens);
}

#[test]
fn errors_name_file_line_and_what_to_do() {
    let good = r#"{"text": "fine"}"#;
    for (line, wanted) in [
        (r#"{"text": "x""#, "not JSON (EOF"),
        ("[1]", "a list, where an object"),
        (r#"{"imges": ["a.png"], "text": "x"}"#, "'imges' is not a valid key (did you mean 'images'?)"),
        (r#"{"imag": "a.png", "text": "x"}"#, "did you mean 'image'?"),
        (
            r#"{"zzz": 1, "text": "x"}"#,
            "'zzz' is not a valid key; known are text, prompt, images, image, file_name, file_names, draw and id",
        ),
        (r#"{"text": 3}"#, "'text' is a number, expected a string"),
        (r#"{"text": "x", "images": [1]}"#, "'images' is a list with something other than strings"),
        (r#"{"text": "<image>x<image>", "images": ["a.png"]}"#, "2 <image> marks, but 1 images"),
        (r#"{"text": "<image>x", "images": []}"#, "1 <image> marks, but 0 images"),
        (r#"{"prompt": "x", "images": ["a.png"]}"#, "nothing to learn"),
        (r#"{"text": "<image>", "images": ["a.png"]}"#, "nothing to learn"),
        (r#"{"text": "x", "images": ["no.png"]}"#, "picture no.png: no such file"),
        (r#"{"prompt": "x", "draw": "no.png"}"#, "picture no.png: no such file"),
        (r#"{"prompt": "x", "draw": "sub"}"#, "picture sub: cannot be read (not a file)"),
        (r#"{"conversations": 1}"#, "'conversations' is a number"),
        (
            r#"{"conversations": [{"from": "human", "value": "q"}]}"#,
            "turn 1 of 'conversations': a question without",
        ),
        (
            r#"{"conversations": [{"from": "gpt", "value": "q"}]}"#,
            "turn 1 of 'conversations': from 'gpt' out of turn",
        ),
        (r#"{"conversations": [{"from": "dog", "value": "q"}]}"#, "from 'dog', where human or gpt"),
        (r#"{"conversations": [{"value": "q"}]}"#, "'from' is missing"),
        (r#"{"conversations": []}"#, "nothing to learn"),
        (
            r#"{"image": "a.png", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "<image>"}]}"#,
            "<image> in answer 2; images go into human turns",
        ),
    ] {
        let error = Set::lines(&[good, "", line, good]).error();
        assert!(
            error.starts_with("train.jsonl:3: ") && error.contains(wanted),
            "{line}\n gave {error}\n want {wanted}"
        );
    }
}

#[test]
fn too_long_a_sample_is_named_with_its_numbers() {
    let line = format!(r#"{{"text": "{}", "images": ["a.png"]}}"#, "x".repeat(59));
    let error = Set::lines(&[r#"{"text": "fine"}"#, &line]).error();
    assert!(
        error.starts_with("train.jsonl:2: 65 tokens (4 of them for pictures), but a microbatch holds 64"),
        "{error}"
    );
    let fits = format!(r#"{{"text": "{}", "images": ["a.png"]}}"#, "x".repeat(58));
    assert_eq!(Set::lines(&[&fits]).load().unwrap().samples[0].len(), 64);
}

#[test]
fn bytes_that_are_no_text_are_named_by_line() {
    let error = Set::new("train.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\xff\"}\n").error();
    assert!(error.starts_with("train.jsonl:2: not UTF-8"), "{error}");
    assert!(Set::new("train.jsonl", "\n  \n").error().contains("holds no sample"));
}

#[test]
fn arrays_that_end_early_are_named_by_line() {
    for (text, line) in [
        ("[\n{\"text\": \"x\"},\n", 3),
        ("[\n{\"text\": \"x\"}\n", 3),
        ("[\n{\"text\": \"x\"} {}]", 2),
        ("[\n\n{\"te", 3),
    ] {
        let error = Set::new("train.json", text).error();
        assert!(error.starts_with(&format!("train.json:{line}: not JSON")), "{text:?}: {error}");
    }
}

#[test]
fn the_first_bad_line_is_the_one_told() {
    let mut lines = vec![r#"{"text": "fine"}"#; 400];
    lines[123] = r#"{"text": "x", "images": ["one.png"]}"#;
    lines[321] = r#"{"text": "x", "images": ["two.png"]}"#;
    assert!(Set::lines(&lines).error().starts_with("train.jsonl:124: picture one.png"));
}

#[test]
fn a_reader_goes_on_after_a_bad_line() {
    let set = Set::lines(&[r#"{"text": "a"}"#, "bad", r#"{"text": "b"}"#]);
    let read: Vec<_> = DatasetFiles::find(&set.path("train.jsonl"), "train").unwrap().records(None).collect();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}
