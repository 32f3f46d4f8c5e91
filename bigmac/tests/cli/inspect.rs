//! `bigmac data inspect` finds what `bigmac train` would refuse.

use crate::work::Work;
use serde_json::Value;
use std::fs;

/// What `data inspect` says of input that cannot be used: its JSON and its error.
fn refused(work: &Work, arguments: &str) -> (Value, String) {
    let ended = work.run(&format!("data inspect {arguments} --json"));
    assert_eq!(ended.status.code(), Some(2), "{}\n{}", ended.stdout, ended.stderr);
    let error =
        ended.stderr.split_once("error: ").unwrap_or_else(|| panic!("no error in {}", ended.stderr)).1;
    assert_eq!(error.lines().count(), 1, "{error}");
    (serde_json::from_str(&ended.stdout).unwrap_or_default(), error.trim_end().to_owned())
}

#[test]
fn both_splits_are_read_as_a_run_would_read_them() {
    let work = Work::new();
    let found = work.json("data inspect data");
    assert_eq!((&found["samples"], &found["heldout"]["samples"]), (&14.into(), &4.into()));
    assert_eq!(found["heldout"]["file"], "data/heldout.jsonl");
    assert_eq!(found["notes"], Value::Array(Vec::new()));
    assert!(found["errors"].as_array().unwrap().is_empty() && found["unknown_tokens"] == 0);
    // A file has its unseen samples beside it, too; a split can be asked for alone.
    assert_eq!(work.json("data inspect data/train.jsonl")["heldout"]["samples"], 4);
    assert_eq!(work.json("data inspect data/train.jsonl --split heldout")["samples"], 4);
    let train = work.json("data inspect data --split train");
    assert!(train["samples"] == 14 && train["heldout"].is_null(), "{train}");
    let unseen = work.json("data inspect data/heldout.jsonl");
    assert!(unseen["samples"] == 4 && unseen["heldout"].is_null(), "not its own unseen samples: {unseen}");

    let lines = [r#"{"text": "fine"}"#, r#"{"txet": "typo"}"#];
    work.write_lines("data/heldout.jsonl", lines);
    let (found, error) = refused(&work, "data");
    assert!(found["errors"].as_array().unwrap().is_empty());
    let sentence = found["heldout"]["errors"][0].as_str().unwrap();
    assert!(sentence.starts_with("data/heldout.jsonl:2: 'txet' is not a valid key"), "{sentence}");
    assert_eq!(error, sentence);
    assert_eq!(work.error("train tiny.toml", &[]).trim_end(), sentence);
    refused(&work, "data --split heldout");
    work.ok("data inspect data --split train");
    work.write_lines("data/heldout.jsonl", [lines[0], lines[1], "{"]);
    assert_eq!(refused(&work, "data").1, "2 of 3 lines of data/heldout.jsonl cannot be used");
    let text = work.run("data inspect data");
    assert!(text.stdout.contains("data/train.jsonl\n") && text.stdout.contains("data/heldout.jsonl\n"));
    fs::remove_file(work.path("data/heldout.jsonl")).unwrap();
    assert!(work.json("data inspect data")["heldout"].is_null());
    let (_, error) = refused(&work, "data/train.jsonl --split heldout");
    assert!(error.contains("no held-out samples"), "{error}");
    let (found, error) = refused(&work, "none");
    assert!(error.starts_with("cannot read none") && found["errors"][0] == error, "{error}\n{found}");
}

#[test]
fn pictures_may_lie_in_a_folder_of_their_own() {
    let work = Work::new();
    fs::create_dir_all(work.path("images/coco")).unwrap();
    fs::copy(work.path("data/0.png"), work.path("images/coco/a.png")).unwrap();
    fs::create_dir(work.path("annotations")).unwrap();
    work.write_lines("annotations/llava.jsonl", [r#"{"text": "a", "images": ["coco/a.png"]}"#]);
    let (_, error) = refused(&work, "annotations/llava.jsonl");
    assert!(
        error.contains("annotations/coco/a.png: no such file") && error.contains("data.images"),
        "{error}"
    );
    for flag in ["--images images", "--set data.images=images"] {
        assert_eq!(work.json(&format!("data inspect annotations/llava.jsonl {flag}"))["images"], 1);
    }
}

#[test]
fn limits_are_those_of_the_configuration() {
    let work = Work::new();
    let long = format!(r#"{{"text": "{}"}}"#, "word ".repeat(300));
    work.write_lines("long.jsonl", [long.as_str()]);
    // The default takes 1024 tokens, tiny.toml 128.
    let (_, error) = refused(&work, "long.jsonl");
    assert!(error.contains("1502 tokens") && error.contains("a microbatch holds 1024"), "{error}");
    work.ok("data inspect long.jsonl --set train.tokens_per_microbatch=2000");
    work.ok("data inspect long.jsonl --tokens-per-microbatch 1502");
    work.write_lines("long.jsonl", [format!(r#"{{"text": "{}"}}"#, "word ".repeat(30))]);
    work.ok("data inspect long.jsonl");
    let (_, error) = refused(&work, "tiny.toml --set data.path=long.jsonl");
    assert!(error.contains("a microbatch holds 128"), "{error}");
    // Sizes come from there too: 4 patches a picture there, 16 in the default.
    let tokens =
        |arguments: &str| work.json(&format!("data inspect {arguments}"))["tokens"].as_u64().unwrap();
    assert_eq!(tokens("data") - tokens("tiny.toml"), 6 * (16 - 4));
    assert_eq!(tokens("data") - tokens("data --tokens-per-tile 1"), 6 * 15);
    for (arguments, wanted) in [
        ("data --grid out.json", "--grid 'out.json': expected a name that ends in .png, .jpg"),
        ("data --set data.max_tils=2", "did you mean 'data.max_tiles'?"),
        ("missing.toml", "missing.toml"),
        ("tiny.toml --set pipeline.schedule=nestd", "did you mean 'nested'?"),
        ("tiny.toml --set data.tokenizer=none.json", "none.json"),
        ("tiny.toml --set model.from=nowhere", "no checkpoint here"),
        ("tiny.toml --set data.tokens.draw=x", "data.tokens.draw = 'x', but without data.tokenizer"),
    ] {
        let (_, error) = refused(&work, arguments);
        assert!(error.contains(wanted), "{arguments}: {error}");
    }
}

#[test]
fn what_a_run_leaves_out_is_no_reason_to_refuse() {
    let work = Work::new();
    work.write_lines("some.jsonl", [r#"{"text": "fine"}"#, "{"]);
    refused(&work, "some.jsonl");
    let ended = work.run("data inspect some.jsonl --set data.on_error=skip --json");
    assert!(ended.status.success() && ended.stderr.contains("leaves out 1 sample that"), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&found["samples"], found["errors"].as_array().unwrap().len()), (&1.into(), 1));
    work.write_lines("some.jsonl", ["{"]);
    let (_, error) = refused(&work, "some.jsonl --set data.on_error=skip");
    assert!(error.contains("holds no sample that can be used: 1 are wrong"), "{error}");
    let train = "train tiny.toml --set data.path=some.jsonl --set data.on_error=skip";
    assert_eq!(work.error(train, &[]).trim_end(), error);
}

#[test]
fn a_byte_order_mark_is_skipped_in_every_text_file() {
    let work = Work::new();
    for name in ["tiny.toml", "s.csv"] {
        let text = if name == "s.csv" { "0F0,0B0\n1F0,1B0\n".to_owned() } else { work.read(name) };
        fs::write(work.path(name), format!("\u{feff}{text}")).unwrap();
    }
    work.ok("data inspect tiny.toml");
    let csv = "simulate --from s.csv --ranks 2 --microbatches 1 --json";
    let with = work.ok(csv);
    fs::write(work.path("s.csv"), "0F0,0B0\n1F0,1B0\n").unwrap();
    assert_eq!(with, work.ok(csv));
    let utf16: Vec<u8> = "\u{feff}[run]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(work.path("tiny.toml"), utf16).unwrap();
    work.error("train tiny.toml", &["tiny.toml", "UTF-16; save the file as UTF-8"]);
}
