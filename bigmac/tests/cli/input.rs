//! What a user can get wrong before and while a run goes on: each is told with its place and what to do, and nothing is
//! lost.

use crate::work::{Work, assert_same_files, copy, ended_with, refused, wait, wait_until};
use std::fs;

#[test]
fn a_misspelt_key_names_the_nearest() {
    let work = Work::new();
    work.error(
        "train tiny.toml --set train.wieght_decay=0",
        &["--set train.wieght_decay=0", "'train.weight_decay'"],
    );
    let tiny = work.read("tiny.toml").replace("warmup", "warm_up");
    fs::write(work.path("bad.toml"), tiny).unwrap();
    work.error("train bad.toml", &["bad.toml", "'train.warm_up'", "'train.warmup'"]);
    let error = work.error("train missing.toml", &["missing.toml", "No such file"]);
    assert_eq!(error.matches("No such file").count(), 1, "a cause is told once: {error}");
    work.error("train tiny.toml --set train.steps=many", &["train.steps", "integer"]);
    work.error(
        "train tiny.toml --set model.encoder.frozen=true --set model.llm.frozen=true --set model.generator.frozen=true",
        &["frozen", "something has to learn"],
    );
    assert!(!work.path("runs").exists());
}

#[test]
fn a_value_that_no_run_could_have_is_named_by_its_key() {
    let work = Work::new();
    for (setting, wanted) in [
        ("train.steps=-1", "'train.steps' cannot be -1"),
        ("train.steps=18446744073709551615", "up to 9223372036854775807"),
        ("model.dtype=fp16", "expected `f32` or `bf16`"),
        ("model.generator.rope_axes=[4,4]", "'model.generator.rope_axes'"),
        ("pipeline.timeout=1e300", "at most 1e9"),
        ("train.batch=1000000000000", "at most 1000000"),
        ("pipeline.ranks=100000", "at most 1024"),
        ("pipeline.chunks=2", "at most 1, since model.llm.layers = 3"),
        ("pipeline.budget=encoder=2", "expected a number and its unit"),
        ("pipeline.budget=decoder=2mb", "'decoder' is not a valid module"),
        ("train.epsilon=1e-60", "32-bit"),
        ("run.name=", "run.name"),
    ] {
        let key = setting.split('=').next().unwrap();
        work.error(&format!("train tiny.toml --set {setting}"), &[key, wanted]);
    }
    assert!(!work.path("runs").exists());
}

#[test]
fn an_unknown_schedule_names_the_nearest() {
    let work = Work::new();
    work.error("train tiny.toml --schedule nestd", &["'nestd'", "did you mean 'nested'?", "phased"]);
    work.error("train tiny.toml --set pipeline.llm=1f1", &["LLM schedule", "did you mean '1f1b'?"]);
    work.error("train tiny.toml --schedule llm", &["'llm'", "simulate it"]);
    let two = "--set pipeline.chunks=2 --ranks 1";
    work.error(&format!("train tiny.toml {two} --schedule nested"), &["'1f1b' runs 1 LLM chunk per rank"]);
    work.error(
        &format!("train tiny.toml {two} --schedule disaggregated"),
        &["disaggregated", "1 LLM chunk per rank"],
    );
    assert!(!work.path("runs").exists(), "nothing is begun that cannot be run");
}

#[test]
fn a_line_that_cannot_be_used_is_named() {
    let work = Work::new();
    let lines: Vec<String> = work.read("data/train.jsonl").lines().map(str::to_owned).collect();
    let with = |number: usize, line: String, wanted: &[&str]| {
        let mut changed = lines.clone();
        changed[number - 1] = line;
        work.write_lines("data/train.jsonl", &changed);
        let place = format!("data/train.jsonl:{number}");
        work.error("train tiny.toml", &[&[place.as_str()], wanted].concat());
    };
    with(3, r#"{"text": "half a li"#.into(), &["not JSON"]);
    with(5, r#"{"text": "a", "imags": ["0.png"]}"#.into(), &["'imags'", "'images'"]);
    with(2, r#"{"text": "<image>a", "images": ["none.png"]}"#.into(), &["data/none.png", "no such file"]);
    let long = "very ".repeat(40);
    with(4, format!(r#"{{"text": "<image>{long}", "images": ["0.png"]}}"#), &["a microbatch holds 128"]);
    work.write_lines("data/train.jsonl", &lines);
    fs::remove_file(work.path("data/3.png")).unwrap();
    work.error("train tiny.toml", &["data/train.jsonl:4", "data/3.png", "no such file"]);
    work.write_lines("data/train.jsonl", [""; 2]);
    work.error("train tiny.toml", &["data/train.jsonl", "no sample"]);
    assert!(!work.path("runs").exists());
}

#[test]
fn a_picture_damaged_while_the_run_goes_on_is_named_and_the_run_kept() {
    let work = Work::new();
    let arguments = "train tiny.toml --steps 100000 --set output.checkpoint_every=2 --out run";
    let mut child = work.command(arguments).spawn().unwrap();
    wait_until(&mut child, || work.path("run/checkpoints/step-00000002").exists());
    let whole = fs::read(work.path("data/4.png")).unwrap();
    // Renamed over the old one: what a broken download leaves, not a file that is seen half truncated.
    fs::write(work.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::rename(work.path("cut.png"), work.path("data/4.png")).unwrap();
    let error = refused(
        &wait(child),
        &["data/train.jsonl:", "data/4.png", "cut short", "run/checkpoints/step-", "--resume run"],
    );
    assert!(error.contains("train.jsonl:5:") || error.contains("train.jsonl:11:"), "{error}");
    fs::write(work.path("data/4.png"), whole).unwrap();
    let steps = work.metrics("run").len();
    work.ok(&format!("train --resume run --steps {}", steps + 2));
    assert_eq!(work.metrics("run").len(), steps + 2);
}

#[test]
fn a_directory_in_use_is_not_written_to() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    let unchanged = |folder: &str, arguments: &str, what: &str| {
        copy(&work.path(folder), &work.path("before"));
        work.error(arguments, &[folder, "already holds", what, "--out"]);
        assert_same_files(&work.path("before"), &work.path(folder));
        fs::remove_dir_all(work.path("before")).unwrap();
    };
    unchanged("run", "train tiny.toml --steps 1 --out run", "checkpoints");
    work.ok("train tiny.toml --steps 1 --out other");
    unchanged("run", "train --resume other --steps 2 --out run", "checkpoints");
    fs::create_dir(work.path("mine")).unwrap();
    fs::write(work.path("mine/config.toml"), "precious").unwrap();
    unchanged("mine", "train tiny.toml --out mine", "config.toml");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 4 --set output.checkpoint_every=2 --set output.keep=1 --out run");
    copy(&work.path("run/checkpoints/step-00000004"), &work.path("good"));
    let kept = "the newest checkpoint, run/checkpoints/step-00000004, is kept: go on with --resume run";
    let error =
        work.failure("train --resume run --steps 8 --set train.lr=1e30", &["step 5", "on rank", kept]);
    assert!(error.contains("the token loss is") || error.contains("the drawing loss is"), "{error}");
    // Weights that are of no use any more do not take a good checkpoint's place.
    work.failure(
        "train --resume run --steps 8 --set train.lr=1e30 --set output.checkpoint_every=1",
        &["after step 4", "parameter", kept],
    );
    assert_eq!(work.names("run/checkpoints"), ["step-00000004"]);
    assert_same_files(&work.path("good"), &work.path("run/checkpoints/step-00000004"));
    work.ok("train --resume run --steps 6");
    let fresh = "train tiny.toml --steps 8 --set train.lr=1e30 --out fresh";
    work.failure(fresh, &["step 1", "no checkpoint was written before"]);
}

#[test]
fn a_rank_that_waits_too_long_ends_the_run() {
    let work = Work::new();
    let arguments = "train tiny.toml --set pipeline.timeout=1e-6 --out run";
    ended_with(75, &work.run(arguments), &["waited 0.000001 s", "no checkpoint was written"]);
}

#[test]
fn a_resumed_run_has_to_fit_its_checkpoint() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    copy(&work.path("run"), &work.path("before"));
    let checkpoint = "run/checkpoints/step-00000003";
    work.error(
        "train --resume run --set model.llm.width=32",
        &[checkpoint, "model.llm.width is 16", "run's is 32"],
    );
    // A key that may change does not hide one that may not.
    work.error(
        "train --resume run --set model.encoder.frozen=true --set model.llm.mlp=64",
        &["model.llm.mlp is 32"],
    );
    work.error("train --resume run --set model.dtype=bf16", &["model.dtype"]);
    work.error("train --resume run --steps 2", &[checkpoint, "3 steps", "--steps"]);
    work.error("train --resume nowhere", &["nowhere", "no checkpoint here"]);
    write_tokenizer(&work);
    work.error(
        "train --resume run --set data.tokenizer=tokenizer.json",
        &[checkpoint, "vocabulary of 264", "one of 16", "data.tokenizer"],
    );
    assert_same_files(&work.path("before"), &work.path("run"));
    let ended = wait(work.command("eval .").current_dir(work.path("run")).spawn().unwrap());
    refused(&ended, &["data set", "current folder", "cannot read data"]);
    work.ok("train tiny.toml --set data.tokenizer=tokenizer.json --out words");
    work.error("train --resume words --set data.tokenizer=", &["vocabulary of 16", "one of 264"]);
}

/// A tokenizer of a few words.
fn write_tokenizer(work: &Work) {
    let special = ["<pad>", "<bos>", "<eos>", "<image>", "<draw>"];
    let words = ["all", "small", "circle", "center", "red", "green", "blue", "yellow"];
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        special.iter().chain(&words).enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let added: Vec<_> = special
        .iter()
        .enumerate()
        .map(|(id, word)| {
            serde_json::json!({ "id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
        })
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>" }
    });
    fs::write(work.path("tokenizer.json"), tokenizer.to_string()).unwrap();
}
