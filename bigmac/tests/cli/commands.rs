//! Every command on a small run of the embedded data set: what it prints, as text and as JSON, and to a reader that
//! leaves.

use crate::work::{Work, wait};
use bigmac_close::{absolute, assert_close};
use serde_json::Value;
use std::process::Stdio;

const COMMANDS: [&str; 11] = [
    "",
    "train",
    "launch",
    "eval",
    "caption",
    "imagine",
    "simulate",
    "doctor",
    "data",
    "data shapes",
    "data inspect",
];

#[test]
fn every_command_has_help_with_an_example() {
    let work = Work::new();
    for command in COMMANDS {
        let help = work.ok(&format!("{command} --help"));
        assert!(help.contains("Example"), "bigmac {command} --help has no example:\n{help}");
        let example = help.split("Example").nth(1).unwrap();
        assert!(example.contains(&format!("bigmac {command}")), "{example}");
    }
    assert_eq!(work.run("trian").status.code(), Some(2));
}

#[test]
fn commands_work_on_a_run_of_the_embedded_data_set() {
    let work = Work::new();
    // Drawings of 32 pixels: small ones cannot be told apart by the detector.
    let trained = work.json(
        "train tiny.toml --set data.path= --set data.shapes=50 --set model.generator.image_size=32 --set \
         model.generator.patch=8 --set train.tokens_per_microbatch=512 --out run",
    );
    assert_eq!(
        (&trained["run"], &trained["step"], &trained["finished"]),
        (&"run".into(), &3.into(), &true.into())
    );
    let files = [
        "captions.png",
        "captions.txt",
        "checkpoints",
        "config.toml",
        "drawings.png",
        "eval.json",
        "metrics.jsonl",
    ];
    let names = work.names("run");
    assert!(files.iter().all(|file| names.iter().any(|n| n == file)), "{names:?}");
    assert!(work.read("run/timeline.html").contains("measured"));

    let eval = work.json("eval run --samples 3");
    check_eval(&eval, 6);
    check_eval(&trained["eval"], 4);
    assert_eq!(trained["eval"], serde_json::from_str::<Value>(&work.read("run/eval.json")).unwrap());
    assert_eq!(eval, work.json("eval run/checkpoints/step-00000003 --samples 3 --threads 1 --out evaluated"));
    assert_eq!(work.names("evaluated"), ["captions.png", "captions.txt", "drawings.png"]);
    assert_eq!(eval, work.json("eval run --samples 3 --threads 100000"));
    let text = work.ok("eval run --samples 3");
    assert!(text.contains("On 6 unseen samples"), "{text}");

    let pictures = "data/0.png data/1.png";
    let captions = work.ok(&format!("caption run {pictures} --max-tokens 4 --json"));
    let captions: Vec<Value> = captions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(captions.iter().map(|c| &c["picture"]).collect::<Vec<_>>(), ["data/0.png", "data/1.png"]);
    assert!(captions.iter().all(|c| c["caption"].is_string()));
    work.ok("caption run data/0.png --prompt what --max-tokens 4");
    work.ok("caption run data/0.png --max-tokens 4294967295");
    // Time grows with the square of a prompt's length, and nothing that long was learned.
    let long = "x".repeat(100_000);
    let wanted = ["100001 tokens", "train.tokens_per_microbatch"];
    work.error(&format!("imagine run {long}"), &wanted);
    work.error(&format!("caption run data/0.png --prompt {long}"), &["tokens", wanted[1]]);
    let error = work.error("caption run data/none.png", &["data/none.png", "no such file"]);
    assert!(!error.contains("data set"), "{error}");
    // What can be captioned is.
    let some = work.run("caption run data/none.png data/0.png --max-tokens 4 --json");
    assert_eq!((some.status.code(), some.stdout.lines().count()), (Some(2), 1), "{}", some.stdout);
    assert!(some.stdout.contains("data/0.png") && some.stderr.contains("error: picture data/none.png"));
    work.error("caption run tiny.toml", &["tiny.toml", "cannot be decoded"]);

    let drawn = work.json("imagine run red --out red.png");
    assert_eq!(drawn, serde_json::json!({ "text": "red", "picture": "red.png" }));
    let picture = image::open(work.path("red.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (32, 32));
    work.ok("imagine run red --seed 1 --out other.png");
    work.ok("imagine run red --out again.png");
    let bytes = |name: &str| std::fs::read(work.path(name)).unwrap();
    assert!(bytes("red.png") == bytes("again.png") && bytes("red.png") != bytes("other.png"));
    for (name, format) in [("red.jpg", image::ImageFormat::Jpeg), ("red.PNG", image::ImageFormat::Png)] {
        work.ok(&format!("imagine run red --out {name}"));
        assert_eq!(image::guess_format(&bytes(name)).unwrap(), format);
    }
    for name in ["red", "red.gif", "red.txt"] {
        work.error(
            &format!("imagine run red --out {name}"),
            &[name, "expected a name that ends in .png, .jpg"],
        );
        assert!(!work.path(name).exists());
    }
    work.error("imagine nowhere red", &["nowhere", "no checkpoint here"]);
    assert_eq!(work.run("imagine run red --steps 100000000000000").status.code(), Some(2));
    let ended = wait(work.command("eval .").current_dir(work.path("run")).spawn().unwrap());
    assert!(
        ended.status.success() && work.path("run/data/shapes-50").exists(),
        "the embedded set is written anew"
    );

    let written = work.json("data shapes --samples 4 --heldout 1 --out shapes");
    assert_eq!(written["train"], 4);
    let many = work.run("data shapes --samples 10000000000000 --out many");
    assert_eq!(many.status.code(), Some(2));
    assert!(many.stderr.contains("not a whole number from 0 to 1000000"), "{}", many.stderr);
    assert_eq!(work.json("data inspect data")["samples"], 14);
    assert_eq!(work.json("simulate --schedule nested")["schedule"], "nested");
    assert!(work.json("doctor")["measured"].is_object());

    leaves_early(
        &work,
        &["eval run --samples 1", "imagine run red", &format!("caption run {pictures} --max-tokens 2")],
    );
}

/// The fields that `bigmac eval --help` documents, and no other.
fn check_eval(eval: &Value, samples: u64) {
    let keys: Vec<&String> = eval.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["caption_exact", "drawing_loss", "drawn_colors", "drawn_exact", "loss", "samples", "token_loss"]
    );
    assert_eq!(eval["samples"], samples);
    let number = |key: &str| eval[key].as_f64().unwrap_or_else(|| panic!("{key} in {eval}"));
    assert_close(number("loss") - number("token_loss"), number("drawing_loss"), absolute(1e-9));
    for key in ["caption_exact", "drawn_exact", "drawn_colors"] {
        assert!((0.0..=1.0).contains(&number(key)), "{eval}");
    }
}

#[test]
fn nothing_panics_when_its_reader_leaves() {
    let work = Work::new();
    let helps = COMMANDS.map(|command| format!("{command} --help"));
    let mut all: Vec<&str> = helps.iter().map(String::as_str).collect();
    all.extend(["data inspect data", "simulate", "simulate --json", "train tiny.toml --steps 1 --out run"]);
    leaves_early(&work, &all);
    // No one listens to standard error either.
    let mut child = work.command("train tiny.toml --out silent").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(wait(child).status.code(), Some(0));
    let mut child = work.command("train missing.toml").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(wait(child).status.code(), Some(2));
}

/// Runs commands whose standard output is closed before they write to it.
fn leaves_early(work: &Work, commands: &[&str]) {
    for arguments in commands {
        let mut child = work.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = wait(child);
        assert_eq!(ended.status.code(), Some(0), "bigmac {arguments}: {}", ended.stderr);
    }
}
