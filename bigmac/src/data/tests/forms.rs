//! Every form that records are written in, and what is refused of it.

use super::*;

const WIDE: Layout = Layout { tokens_per_microbatch: 512, ..LAYOUT };

/// A record as text: what is learned in brackets, pictures as `#`, ends as `|`, the mark of a picture to draw as `@`.
fn written(line: &str) -> String {
    let set = Set::new("train.json", format!("[{line}]"));
    let data = set.load_with(&WIDE).unwrap_or_else(|error| panic!("{line}\n gave {error}"));
    let (sample, specials) = (&data.samples[0], data.tokenizer.specials());
    let mut bytes = Vec::new();
    let mut inside = false;
    for (i, &token) in sample.tokens.iter().enumerate().skip(1) {
        let learned = sample.learned.iter().any(|range| range.contains(&(i as u32)));
        if learned != inside {
            bytes.push(if learned { b'[' } else { b']' });
            inside = learned;
        }
        bytes.push(match token {
            t if t == specials.image => b'#',
            t if t == specials.eos => b'|',
            t if t == specials.draw => b'@',
            t => u8::try_from(t).unwrap(),
        });
    }
    if inside {
        bytes.push(b']');
    }
    String::from_utf8(bytes).unwrap()
}

/// The names of a record's pictures, the one to be drawn last.
fn pictures(line: &str) -> Vec<String> {
    let set = Set::new("train.json", format!("[{line}]"));
    let data = set.load_with(&WIDE).unwrap_or_else(|error| panic!("{line}\n gave {error}"));
    let images = data.samples[0].images.iter().map(|image| &image.picture);
    let all = images.chain(&data.samples[0].draw);
    all.map(|picture| set.name_of(picture).display().to_string()).collect()
}

#[test]
fn the_own_form_and_image_folders_say_what_they_say() {
    for (line, wanted) in [
        (r#"{"image": "a.png", "text": "x"}"#, "#[x|]"),
        (r#"{"file_name": "a.png", "text": "x"}"#, "#[x|]"),
        (r#"{"file_names": ["a.png", "b.png"], "text": "x<image><image>"}"#, "[x]##[|]"),
        (r#"{"images": [{"path": "a.png", "bytes": null}], "text": "x"}"#, "#[x|]"),
        (r#"{"image": {"bytes": null, "path": "a.png"}, "prompt": "p", "text": "x"}"#, "#p[x|]"),
        (r#"{"image": null, "images": ["a.png"], "text": "x"}"#, "#[x|]"),
        (r#"{"image": {"bytes": null, "path": null}, "text": "x"}"#, "[x|]"),
        (r#"{"image": "", "text": "x"}"#, "[x|]"),
        (r#"{"text": "x", "draw": {"path": "b.png"}}"#, "[x@]"),
        (
            r#"{"id": 7, "source": "s", "model": "m", "width": 3, "videos": null, "tols": [], "text": "x"}"#,
            "[x|]",
        ),
        // A literal mark.
        (r#"{"text": "a \\<image> b <image>", "images": ["a.png"]}"#, "[a <image> b ]#[|]"),
        (r#"{"text": "\\<image>"}"#, "[<image>|]"),
        (r#"{"text": "\\\\<image>\\<"}"#, "[\\<image>\\<|]"),
        (r#"{"prompt": "\\<image>", "text": "x", "images": ["a.png"]}"#, "#<image>[x|]"),
        (r#"{"text": "<draw></s>\\<eos>"}"#, "[<draw></s>\\<eos>|]"),
    ] {
        assert_eq!(written(line), wanted, "{line}");
    }
}

#[test]
fn conversations_say_what_they_say() {
    for (line, wanted) in [
        (
            r#"{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nq"},
              {"from": "gpt", "value": "a"}]}"#,
            "USER: #\nq ASSISTANT:[ a|]",
        ),
        (
            r#"{"images": ["a.png"], "conversations": [{"from": "human", "value": "q"}, {"from": "gpt",
              "value": "a"}], "id": "x", "model": "m"}"#,
            "USER: #q ASSISTANT:[ a|]",
        ),
        (
            r#"{"images": ["a.png"], "system": "S", "conversations": [{"role": "user", "content": "q"},
              {"role": "assistant", "content": "a"}]}"#,
            "S USER: #q ASSISTANT:[ a|]",
        ),
        (
            r#"{"image": ["a.png"], "conversations": [{"from": "system", "value": "S"}, {"from": "user",
              "value": "q"}, {"from": "assistant", "value": "  a\n"},
               {"from": "human", "value": "r"}, {"from": "gpt", "value": ""}], "messages": null}"#,
            "S USER: #q ASSISTANT:[   a\n|]USER: r ASSISTANT:[ |]",
        ),
        // Messages.
        (
            r#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user",
              "content": "<image>q"}, {"role": "assistant", "content": "a"}], "images": ["a.png"]}"#,
            "Be brief. USER: #q ASSISTANT:[ a|]",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "q<image>"}, {"role": "assistant",
              "content": "a"}, {"role": "user", "content": "<image>r"}, {"role": "assistant",
              "content": "b"}], "images": ["a.png", "b.png"]}"#,
            "USER: q# ASSISTANT:[ a|]USER: #r ASSISTANT:[ b|]",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text",
              "text": "q"}]}, {"role": "assistant", "content": [{"type": "text", "text": "a"},
              {"type": "text", "text": "b"}]}], "images": ["a.png"]}"#,
            "USER: #q ASSISTANT:[ ab|]",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "q<image>",
              "image": null}]}, {"role": "assistant", "content": "a"}], "images": ["a.png"]}"#,
            "USER: q# ASSISTANT:[ a|]",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image", "image": "b.png"},
              {"type": "text", "text": "<image>q"}]}, {"role": "assistant", "content": "a"}]}"#,
            "USER: #<image>q ASSISTANT:[ a|]",
        ),
        // What is drawn follows from all before it.
        (r#"{"messages": [{"role": "user", "content": "q"}], "draw": "b.png"}"#, "USER: q ASSISTANT:[@]"),
        (
            r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
              "draw": "b.png", "image": "a.png"}"#,
            "USER: #q ASSISTANT:[ a@]",
        ),
        // An answer's marks are text.
        (
            r#"{"messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant",
              "content": "a <image> \\<image>"}], "images": ["a.png"]}"#,
            "USER: #q ASSISTANT:[ a <image> <image>|]",
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "write <image>"}]}"#,
            "USER: q ASSISTANT:[ write <image>|]",
        ),
        (
            r#"{"image": "a.png", "conversations": [{"from": "human", "value": "\\<image>q"},
              {"from": "gpt", "value": "\\<image>"}]}"#,
            "USER: #<image>q ASSISTANT:[ <image>|]",
        ),
    ] {
        assert_eq!(written(line), wanted, "{line}");
    }
}

#[test]
fn pictures_come_in_the_order_of_their_places() {
    for (line, wanted) in [
        (
            r#"{"images": ["a.png", "b.png"], "text": "<image>x<image>", "draw": "sub/c.png"}"#,
            ["a.png", "b.png", "sub/c.png"],
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image", "path": "sub/c.png"},
              {"type": "image"}]}, {"role": "assistant", "content": "x"},
               {"role": "user", "content": "<image>"}, {"role": "assistant", "content": "y"}],
               "images": ["b.png", "a.png"]}"#,
            ["sub/c.png", "b.png", "a.png"],
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url",
              "image_url": {"url": "b.png", "detail": "low"}}, {"type": "image", "url": "a.png"},
               {"type": "image", "image": {"path": "sub/c.png", "bytes": null}}]},
               {"role": "assistant", "content": "x"}]}"#,
            ["b.png", "a.png", "sub/c.png"],
        ),
    ] {
        assert_eq!(pictures(line), wanted, "{line}");
    }
    let set = Set::lines(&[]);
    let url = format!(r#"{{"image": "file://{}", "text": "x"}}"#, set.path("a.png").display());
    std::fs::write(set.path("train.jsonl"), url).unwrap();
    assert_eq!(set.load().unwrap().samples[0].images[0].picture.path(), Some(set.path("a.png").as_path()));
}

/// Checks that a line is an error that says this, with its place, in a length that can be read.
fn refused(line: &str, wanted: &str) {
    let error = Set::lines(&[r#"{"text": "fine"}"#, &line.replace('\n', " ")]).error();
    assert!(
        error.starts_with("train.jsonl:2: ") && error.contains(wanted),
        "{line}\n gave {error}\n want {wanted}"
    );
    assert!(error.len() < 500, "{error}");
}

/// A conversation of one question and one answer, with other keys.
fn asked(keys: &str) -> String {
    format!(
        r#"{{"conversations": [{{"from": "human", "value": "q"}}, {{"from": "gpt", "value": "a"}}], {keys}}}"#
    )
}

/// Messages of which the first has this content.
fn content(content: &str, keys: &str) -> String {
    format!(
        r#"{{"messages": [{{"role": "user", "content": {content}}}, {{"role": "assistant",
          "content": "a"}}]{keys}}}"#
    )
}

#[test]
fn what_is_not_read_in_records_is_named() {
    for (line, wanted) in [
        (
            asked(r#""imgae": "a.png""#),
            "'imgae' is not a valid key (did you mean 'image'?); known are conversations, system,",
        ),
        (asked(r#""text": "t""#), "'text' is not read beside 'conversations'"),
        (asked(r#""image": "a.png", "images": ["b.png"]"#), "'images' and 'image' both name pictures"),
        (asked(r#""messages": [{"role": "user"}]"#), "'conversations' and 'messages' both hold turns"),
        (asked(r#""video": "v.mp4""#), "'video' is not read: videos are not read"),
        (asked(r#""audios": ["v.mp3"]"#), "'audios' is not read: audio is not read"),
        (asked(r#""tools": "[]""#), "'tools' is not read: tool calls"),
        (asked(r#""rejected": {"from": "gpt", "value": "b"}"#), "'rejected' is not read: preferences"),
        (content(r#""q""#, r#", "label": false"#), "'label' is not read: labels"),
        (content(r#""q""#, r#", "objects": {"ref": [], "bbox": [[1, 2]]}"#), "'objects' is not read: boxes"),
        (asked(r#""system": 3"#), "'system' is a number, expected a string"),
        (
            r#"{"text": "x", "system": "s"}"#.into(),
            "'system' is read with 'messages' or 'conversations' only",
        ),
        (r#"{"instruction": "q", "output": "a"}"#.into(), "'instruction' is not read: write it as 'prompt'"),
        (
            r#"{"data": [{"text": "x"}, {"text": "y"}]}"#.into(),
            "it holds a list of 2 objects: if those are the records",
        ),
        (
            r#"{"mesages": [{"role": "user", "content": "q"}]}"#.into(),
            "'mesages' is not a valid key (did you mean 'messages'?)",
        ),
        (r#"{"conversation": [{"from": "human"}]}"#.into(), "(did you mean 'conversations'?)"),
        (
            r#"{"text": "x", "images": ["a.png", null]}"#.into(),
            "item 2 of 'images' is empty, expected a path",
        ),
        (r#"{"text": "x", "images": [["a.png"]]}"#.into(), "'images' is a list of lists"),
        (
            r#"{"text": "x", "images": [{"bytes": "iVBO", "path": "a.png"}]}"#.into(),
            "item 1 of 'images' holds the bytes of a picture",
        ),
        (
            r#"{"text": "x", "image": {"pth": "a.png"}}"#.into(),
            "'image': 'pth' is not a valid key (did you mean 'path'?)",
        ),
        (r#"{"text": "x", "image": 3}"#.into(), "'image' is a number, expected a list of paths"),
        (r#"{"text": "x", "draw": ["a.png"]}"#.into(), "'draw' is a list, expected a path"),
        (
            r#"{"text": "x", "image": "https://x.org/a.png"}"#.into(),
            "'image' is a URL ('https://x.org/a.png'); nothing is downloaded",
        ),
        (r#"{"text": "x", "image": "data:image/png;base64,AAAA"}"#.into(), "'image' is a data: URL"),
        (
            format!(r#"{{"text": "x", "image": "{}"}}"#, "iVBO".repeat(2000)),
            "'image' is a text of 8000 bytes, expected a path",
        ),
        (r#"{"text": "x", "image": "a\u0000.png"}"#.into(), "'image' has a NUL character"),
    ] {
        refused(&line, wanted);
    }
}

#[test]
fn what_is_not_read_in_turns_is_named() {
    let turn = |turn: &str| format!(r#"{{"messages": [{turn}, {{"role": "assistant", "content": "a"}}]}}"#);
    for (line, wanted) in [
        (
            turn(r#"{"role": "user", "content": "q", "loss": false}"#),
            "turn 1 of 'messages': 'loss' is not read",
        ),
        (
            turn(r#"{"role": "user", "content": "q", "imags": ["a.png"]}"#),
            "turn 1 of 'messages': 'imags' is not a valid key",
        ),
        (turn(r#"{"role": "user", "from": "user", "content": "q"}"#), "'from' and 'role' say the same thing"),
        (
            turn(r#"{"role": "usr", "content": "q"}"#),
            "role 'usr', where user or assistant is expected (did you mean 'user'?)",
        ),
        (turn(r#"{"role": "tool", "content": "q"}"#), "role 'tool': tool calls are not read"),
        (turn(r#"{"content": "q"}"#), "turn 1 of 'messages': 'role' is missing"),
        (turn(r#"{"role": "user", "content": null}"#), "turn 1 of 'messages': 'content' is missing"),
        (
            turn(r#"{"role": "user", "content": {}}"#),
            "'content' is an object, expected a string or a list of parts",
        ),
        (
            turn(r#"{"role": "system", "content": "s"}"#),
            "turn 2 of 'messages': role 'assistant' out of turn; user and assistant",
        ),
        (content(r#"["q"]"#, ""), "part 1 of 'content': a string, where"),
        (content(r#"[{"text": "q"}]"#, ""), "part 1 of 'content': 'type' is missing"),
        (
            content(r#"[{"type": "txt", "text": "q"}]"#, ""),
            "'txt' is not a valid type; expected text, image or image_url",
        ),
        (content(r#"[{"type": "video", "video": "v.mp4"}]"#, ""), "videos are not read"),
        (content(r#"[{"type": "image", "source": {"data": "x"}}]"#, ""), "'source' is not a valid key"),
        (
            content(r#"[{"type": "image", "image": "a.png", "path": "a.png"}]"#, ""),
            "'image' and 'path' both name the picture",
        ),
        (
            content(r#"[{"type": "image_url", "image_url": {"url": "data:x"}}]"#, ""),
            "'image_url' is a data: URL",
        ),
        (content(r#"[{"type": "image_url"}]"#, ""), "'image_url' has no 'url'"),
        (content(r#"[{"type": "image"}]"#, ""), "1 <image> marks, but 0 images"),
        (
            content(r#"[{"type": "image", "image": "a.png"}]"#, r#", "images": ["a.png"]"#),
            "1 images that no mark takes, beside 1",
        ),
        (content(r#""<image>""#, r#", "images": ["a.png", "b.png"]"#), "1 <image> marks, but 2 images"),
        (content(r#""q""#, r#", "system": "s", "file_name": "no.png""#), "picture no.png: no such file"),
        (
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
              "system": "t", "draw": "a.png"}"#
                .into(),
            "turn 1 of 'messages': a second system text",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant",
              "content": "<image>"}], "images": ["a.png"]}"#
                .into(),
            "<image> in answer 2; images go into human turns",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant",
              "content": "<image>"}], "images": ["a.png", "b.png"]}"#
                .into(),
            "1 <image> marks (the one in answer 2 is text), but 2 images",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant",
              "content": [{"type": "image"}]}], "images": ["a.png"]}"#
                .into(),
            "turn 2 of 'messages': an image in an answer",
        ),
    ] {
        refused(&line, wanted);
    }
}

/// What a container's reader relies on: pictures that the file holds are the record's, in every form.
#[test]
fn pictures_that_the_file_holds_are_the_records() {
    let set = Set::lines(&[]);
    let held = |name: &str| PictureRef::new(&set.path(name));
    let read = |line: &str, images: &[&str], draw: Option<&str>| {
        let raw = super::super::forms::RawRecord {
            object: serde_json::from_str(line).unwrap(),
            images: images.iter().map(|name| held(name)).collect(),
            draw: draw.map(held),
            file: Arc::from(set.path("x.tar").as_path()),
            place: Place::Row(3),
        };
        super::super::forms::read(raw, &|name| Ok(held(name)))
    };
    for line in [
        r#"{"text": "x"}"#,
        r#"{"text": "<image>x<image>", "image": null}"#,
        r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
          "image": {"path": null}}"#,
        r#"{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}], "draw": null}"#,
    ] {
        let record = read(line, &["a.png", "b.png"], Some("sub/c.png")).unwrap();
        assert_eq!(record.images, [held("a.png"), held("b.png")], "{line}");
        assert_eq!((record.draw, record.place), (Some(held("sub/c.png")), Place::Row(3)), "{line}");
    }
    let both = read(r#"{"text": "x", "image": "a.png"}"#, &["b.png"], None).unwrap_err();
    assert!(both.contains("'image' names pictures, but the file holds 1"), "{both}");
    let both = read(r#"{"text": "x", "draw": "a.png"}"#, &[], Some("b.png")).unwrap_err();
    assert!(both.contains("'draw' names a picture, but the file holds one"), "{both}");
}

/// The literal mark stays text in a tokenizer whose special token it is.
#[test]
fn a_literal_mark_survives_a_tokenizer_that_has_it_as_a_token() {
    let names = ["<pad>", "<s>", "</s>", "<image>", "<draw>"];
    let vocab: serde_json::Map<_, _> = (0u32..256)
        .map(|byte| (char::from_u32(byte).map(String::from).unwrap_or_default(), byte.into()))
        .collect();
    let added: Vec<_> = (256..)
        .zip(names)
        .map(|(id, name)| {
            serde_json::json!({"id": id, "content": name,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    let set = Set::lines(&[r#"{"images": ["a.png"], "text": "<image>a \\<image> <draw>"}"#]);
    std::fs::write(set.path("tokenizer.tok"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&set.path("tokenizer.tok")).unwrap();
    let options = ReadOptions { tokenizer, layout: WIDE, images: None, skip: false };
    let data = Dataset::load(set.folder.path(), "train", &options).unwrap();
    let text: Vec<u32> = "a <image> <draw>".bytes().map(u32::from).collect();
    assert_eq!(data.samples[0].tokens[..], [&[257, 259][..], &text[..], &[258][..]].concat());
    assert_eq!(data.samples[0].images.len(), 1);
}
