//! Damaged checkpoints and disks that are full: told by name, and what was whole stays whole.

use crate::work::{Work, assert_same_files, copy, ended_with, refused, wait};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

const FILES: [&str; 6] = [
    "model.safetensors",
    "optimizer.safetensors",
    "generator/diffusion_pytorch_model.safetensors",
    "state.json",
    "config.json",
    "generator/config.json",
];

#[test]
fn a_newest_checkpoint_that_is_damaged_is_named_and_the_one_before_goes_on() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 4 --set output.checkpoint_every=2 --out whole");
    let newest = "run/checkpoints/step-00000004";
    let damaged = |file: &str, change: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(work.path("run"));
        copy(&work.path("whole"), &work.path("run"));
        let path = work.path(newest).join(file);
        change(&path);
        let name = format!("{newest}/{file}");
        // What the weights are not read from does not keep them from being read.
        if file != "optimizer.safetensors" || !path.exists() {
            work.error("eval run", &[newest]);
        }
        work.error(&format!("train --resume {newest} --out other"), &[newest]);
        let ended = work.run("train --resume run");
        assert!(ended.status.success(), "{}", ended.stderr);
        let note = "going on from run/checkpoints/step-00000002";
        assert!(ended.stderr.contains("a newer checkpoint cannot be used") && ended.stderr.contains(note));
        assert!(ended.stderr.contains(newest), "{name}: {}", ended.stderr);
        // It is kept, under a name that is not taken for a checkpoint's.
        let names = ["step-00000002", "step-00000004", "step-00000004.damaged"];
        assert_eq!(work.names("run/checkpoints"), names, "{name}");
        for step in &names[..2] {
            let step = format!("checkpoints/{step}");
            assert_same_files(&work.path("whole").join(&step), &work.path("run").join(&step));
        }
        assert_eq!(work.metrics("run"), work.metrics("whole"));
    };
    for file in FILES {
        for part in [2, usize::MAX] {
            damaged(file, &|path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() / part]).unwrap();
            });
        }
        damaged(file, &|path| fs::remove_file(path).unwrap());
    }
    damaged("config.json", &|path| fs::write(path, "{}").unwrap());
    damaged("optimizer.safetensors", &|path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    });
    assert!(!work.path("other").exists());

    for step in [2, 4] {
        fs::write(work.path(&format!("run/checkpoints/step-0000000{step}/state.json")), "{").unwrap();
    }
    work.error("train --resume run", &["no checkpoint that can be used", "step-00000002", newest]);
}

#[test]
fn bits_that_changed_are_noticed_unless_nobody_wants_to_know() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 2 --out run");
    let path = work.path("run/checkpoints/step-00000002/model.safetensors");
    let whole = fs::read(&path).unwrap();
    let change = |value: f32| {
        let mut bytes = whole.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    };
    let commands = [
        "eval run",
        "caption run data/0.png",
        "imagine run red",
        "train tiny.toml --set model.from=run --out other",
    ];
    change(0.125);
    for command in commands.into_iter().chain(["train --resume run --steps 3"]) {
        work.error(command, &["model.safetensors", "SHA-256", "--no-verify"]);
        work.ok(&format!("{command} --no-verify"));
        let _ = fs::remove_dir_all(work.path("other"));
        let _ = fs::remove_dir_all(work.path("run/checkpoints/step-00000003"));
    }
    for wrong in [f32::NAN, f32::INFINITY] {
        change(wrong);
        for command in commands.into_iter().chain(["train --resume run --steps 3"]) {
            work.error(&format!("{command} --no-verify"), &["step-00000002", "parameter", "not finite"]);
        }
    }
}

#[test]
fn configurations_of_models_are_not_locked_but_have_to_mean_the_same() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 2 --out run");
    let change = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = work.path("run/checkpoints/step-00000002").join(file);
        let before = fs::read_to_string(&path).unwrap();
        let mut value = serde_json::from_str(&before).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
        let ended = work.run("imagine run red");
        fs::write(&path, before).unwrap();
        ended
    };
    for file in ["config.json", "generator/config.json"] {
        let ended = change(file, &|value| value["note"] = "mine".into());
        assert!(ended.status.success(), "{}", ended.stderr);
    }
    for (file, pointer, wrong, field) in [
        ("config.json", "/text_config/hidden_size", 32, "hidden_size"),
        ("config.json", "/text_config/num_hidden_layers", 1_000_000_000, "num_hidden_layers"),
        ("config.json", "/vision_config/num_attention_heads", 4, "num_attention_heads"),
        ("generator/config.json", "/num_layers", 2, "num_layers"),
    ] {
        let ended = change(file, &|value| *value.pointer_mut(pointer).unwrap() = wrong.into());
        refused(&ended, &[file, field, &wrong.to_string()]);
    }
    // The run's own configuration is looked at as if a user had just written it.
    for (pointer, wrong, wanted) in [
        ("/config/model/encoder/patch", 0, "patch"),
        ("/config/model/generator/patch", 5, "patch"),
        ("/config/train/wieght_decay", 1, "did you mean 'train.weight_decay'"),
        ("/config/model/llm/width", -1, "'model.llm.width' cannot be -1"),
        ("/format", 7, "format 7"),
        ("/stpe", 7, "stpe"),
    ] {
        let ended = change("state.json", &|value| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = wrong.into();
        });
        refused(&ended, &["state.json", wanted]);
    }
}

#[test]
fn no_room_for_a_checkpoint_is_told_and_the_last_one_kept() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 6 --set output.checkpoint_every=1 --set output.keep=6 --out whole");
    copy(&work.path("whole"), &work.path("run"));
    for newer in [5, 6] {
        fs::remove_dir_all(work.path(&format!("run/checkpoints/step-0000000{newer}"))).unwrap();
    }
    let kept = "run/checkpoints/step-00000004";
    copy(&work.path(kept), &work.path("kept"));
    let mut command = work.command("train --resume run");
    // Metrics fit below the limit, weights do not.
    let limit = libc::rlimit { rlim_cur: 16 << 10, rlim_max: 16 << 10 };
    // SAFETY: setrlimit is safe to be called between fork and exec, and reads a plain structure.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let ended = wait(command.spawn().unwrap());
    let checkpoint = "run/checkpoints/step-00000005";
    ended_with(
        1,
        &ended,
        &["could not write the checkpoint", checkpoint, "File too large", "make room", "--resume", kept],
    );
    assert_eq!(work.names("run/checkpoints"), [1, 2, 3, 4].map(|step| format!("step-{step:08}")));
    assert_same_files(&work.path("kept"), &work.path(kept));
    work.ok("train --resume run");
    let last = "checkpoints/step-00000006";
    assert_same_files(&work.path("whole").join(last), &work.path("run").join(last));
}

#[test]
fn a_place_that_cannot_be_written_to_is_named() {
    let work = Work::new();
    fs::write(work.path("file"), "").unwrap();
    // Below a file no one can write, not even root.
    work.error("train tiny.toml --out file/run", &["file/run"]);
    work.ok("train tiny.toml --out run");
    work.error("eval run --out file/eval", &["file/eval"]);
    work.error("imagine run red --out file/red.png", &["file/red.png"]);
    work.error("data shapes --samples 2 --heldout 0 --out file/set", &["file/set"]);
    work.error("simulate --timeline file/steps.html", &["file/steps.html"]);
}
