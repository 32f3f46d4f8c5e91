//! Data sets of other kinds, and modules that keep their weights.

use crate::work::Work;
use bigmac_runtime::safetensors::SafetensorsFile;
use bigmac_runtime::{Context, DType};
use image::{Rgb, RgbImage};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const NOT_EVALUATED: &str = "Not evaluated: the data set has no held-out samples";

#[test]
fn llava_conversations_over_a_folder_of_jpegs() {
    let work = Work::new();
    fs::create_dir_all(work.path("llava/photos")).unwrap();
    let mut samples = Vec::new();
    for i in 0..6_u8 {
        // Neither square nor of the encoder's size.
        let name = format!("photos/{i}.jpg");
        RgbImage::from_pixel(50, 30, Rgb([40 * i, 90, 200]))
            .save(work.path(&format!("llava/{name}")))
            .unwrap();
        samples.push(serde_json::json!({ "id": i.to_string(), "image": name, "conversations": [
            { "from": "human", "value": "<image>\nWhat is it?" }, { "from": "gpt", "value": "A colour." },
            { "from": "human", "value": "Sure?" }, { "from": "gpt", "value": "Yes." } ] }));
    }
    fs::write(work.path("llava/chat.json"), serde_json::Value::from(samples.clone()).to_string()).unwrap();
    let train = "train tiny.toml --steps 2 --set train.tokens_per_microbatch=256";
    let text = work.ok(&format!("{train} --set data.path=llava/chat.json --out array"));
    assert!(text.contains(NOT_EVALUATED), "{text}");
    // The same as lines, found in its folder, with large pictures cut into tiles, and some held out.
    work.write_lines("llava/train.jsonl", samples[..4].iter().map(ToString::to_string));
    work.write_lines("llava/heldout.jsonl", samples[4..].iter().map(ToString::to_string));
    let eval = work.json(&format!("{train} --set data.path=llava --set data.max_tiles=2 --out lines"));
    assert_eq!(eval["eval"]["samples"], 2);
    assert!(eval["eval"]["drawn_exact"].is_null());
    assert!(work.metrics("lines")[0]["images"].as_u64() > work.metrics("array")[0]["images"].as_u64());
    let caption = work.ok("caption lines llava/photos/0.jpg --max-tokens 3");
    assert_eq!(caption.lines().count(), 1);
}

#[test]
fn a_set_of_texts_alone_trains() {
    let work = Work::new();
    work.write_lines(
        "text.jsonl",
        ["one", "two", "three", "four", "five"].map(|t| format!(r#"{{"text": "{t}"}}"#)),
    );
    for schedule in ["nested", "phased", "monolithic"] {
        let text = work.ok(&format!(
            "train tiny.toml --set data.path=text.jsonl --schedule {schedule} --steps 2 --out {schedule}"
        ));
        assert!(text.contains(NOT_EVALUATED) && text.contains("heldout.jsonl"), "{text}");
        assert_eq!(work.metrics(schedule)[1]["images"], 0);
        assert_eq!(work.metrics(schedule)[1]["drawing_loss"], 0.0);
    }
    let json = work.json("train tiny.toml --set data.path=text.jsonl --steps 1 --out json");
    assert!(json["finished"] == true && json["eval"].is_null(), "{json}");
    work.error("eval json", &["no held-out samples", "heldout.jsonl"]);
    // Held-out texts beside a file of the current directory are found.
    work.write_lines("heldout.jsonl", [r#"{"text": "six"}"#]);
    let json = work.json("train tiny.toml --set data.path=text.jsonl --steps 1 --out found");
    assert_eq!(json["eval"]["samples"], 1);
    assert!(
        json["eval"]["caption_exact"].is_null() && json["eval"]["token_loss"].as_f64().unwrap() > 0.0,
        "{json}"
    );
    let names = work.names("found");
    assert!(!names.iter().any(|name| name.contains("captions") || name.contains("drawings")), "{names:?}");
    // Nothing is read or drawn: nothing of that kind is told or suggested.
    let text = work.ok("train tiny.toml --set data.path=text.jsonl --steps 1 --out told");
    for word in ["caption", "drawing ", "imagine", "circle"] {
        assert!(!text.contains(word), "'{word}' in {text}");
    }
    assert!(
        text.contains("On 1 unseen samples")
            && text.contains("bigmac train told/config.toml --schedule mono")
    );
    work.error("train tiny.toml --set data.heldout=none.jsonl --out none", &["none.jsonl"]);
}

/// Every parameter of a checkpoint with its bits, the generator's under `generator.`.
fn weights(work: &Work, run: &str, step: u64) -> BTreeMap<String, Vec<u32>> {
    let folder = work.path(&format!("{run}/checkpoints/step-{step:08}"));
    let ctx = Context::cpu(0, 1).unwrap();
    let mut all = BTreeMap::new();
    for (prefix, file) in
        [("", "model.safetensors"), ("generator.", "generator/diffusion_pytorch_model.safetensors")]
    {
        let file = SafetensorsFile::open(&folder.join(file)).unwrap();
        for name in file.names() {
            let tensor = file.load(&ctx, name).unwrap();
            assert_eq!(tensor.dtype(), DType::F32);
            let bits = tensor.as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
            all.insert(format!("{prefix}{name}"), bits);
        }
    }
    all
}

#[test]
fn frozen_modules_keep_their_weights_bit_for_bit() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 0 --out start");
    let start = weights(&work, "start", 0);
    let module = |name: &str| match name {
        _ if name.starts_with("generator.") => "generator",
        _ if name.contains("vision_tower") || name.contains("multi_modal_projector") => "encoder",
        _ => "llm",
    };
    for frozen in [&["encoder"][..], &["llm"], &["generator"], &["encoder", "llm"], &["llm", "generator"]] {
        let run = frozen.join("-");
        let settings: String = frozen.iter().map(|m| format!("--set model.{m}.frozen=true ")).collect();
        work.ok(&format!("train tiny.toml --steps 6 --set train.lr=1e-2 {settings} --out {run}"));
        let end = weights(&work, &run, 6);
        assert!(end.keys().eq(start.keys()));
        let mut changed: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, bits) in &end {
            let count = changed.entry(module(name)).or_default();
            *count += usize::from(start[name] != *bits);
        }
        assert_eq!(changed.len(), 3, "{changed:?}");
        for (module, changed) in changed {
            assert_eq!(
                changed == 0,
                frozen.contains(&module),
                "{run}: {changed} parameters of {module} changed"
            );
        }
    }
}

/// Runs what a finished run suggests to try with a command, in a shell, and returns what it printed.
fn tried(work: &Work, told: &str, command: &str) -> Vec<String> {
    let (_, next) = told.split_once("Try next:\n").unwrap();
    let run = |line: &str| {
        let script = format!("'{}' {line}", env!("CARGO_BIN_EXE_bigmac"));
        let ended = Command::new("sh").args(["-c", &script]).current_dir(work.path("")).output().unwrap();
        assert!(ended.status.success(), "{script}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    };
    next.split("  bigmac ").filter(|line| line.starts_with(command)).map(run).collect()
}

#[test]
fn what_is_suggested_fits_the_data_and_works() {
    let work = Work::new();
    let told = work.ok("train tiny.toml --steps 1 --out run");
    assert!(told.contains("bigmac imagine run --out picture.png 'small red circle center'\n"), "{told}");
    assert!(told.contains("bigmac caption run data/0.png\n"), "{told}");
    assert_eq!(tried(&work, &told, "imagine"), ["picture.png\n"]);
    assert_eq!(tried(&work, &told, "caption").len(), 1);
    // Texts and paths that a shell or the command would read something into, and a question.
    fs::create_dir(work.path("odd set")).unwrap();
    RgbImage::from_pixel(16, 16, Rgb([9, 90, 200])).save(work.path("odd set/it's.png")).unwrap();
    let lines = [
        r#"{"prompt": "-$HOME's `ls` \"7\"", "draw": "it's.png"}"#,
        r#"{"images": ["it's.png"], "prompt": "<image>\nWhich\ndigit?", "text": "seven"}"#,
    ];
    work.write_lines("odd set/train.jsonl", [&lines[..], &lines, &lines].concat());
    work.write_lines("odd set/heldout.jsonl", lines);
    let toml = work.read("tiny.toml").replace("path = \"data\"", "path = \"odd set\"");
    fs::write(work.path("odd.toml"), toml).unwrap();
    let told = work.ok("train odd.toml --steps 1 --out odd");
    assert!(told.contains(r#"-- '-$HOME'\''s `ls` "7"'"#) && !told.contains("circle"), "{told}");
    assert!(told.contains("caption odd 'odd set/it'\\''s.png' --prompt='\nWhich\ndigit?'"), "{told}");
    assert_eq!(tried(&work, &told, "imagine"), ["picture.png\n"]);
    assert_eq!(tried(&work, &told, "caption").len(), 1);
}
