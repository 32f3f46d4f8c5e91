//! Damaged checkpoints and disks that are full: told by name, and what was whole stays whole.

use crate::work::{Work, assert_same_files, copy, refused, wait};
use std::fs;
use std::os::unix::process::CommandExt;

#[test]
fn a_checkpoint_that_is_cut_short_is_refused_and_the_one_before_goes_on() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 4 --set output.checkpoint_every=2 --out run");
    let newest = "run/checkpoints/step-00000004";
    copy(&work.path(newest), &work.path("whole"));
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "config.json",
        "generator/diffusion_pytorch_model.safetensors",
    ] {
        let path = work.path(newest).join(file);
        let bytes = fs::read(&path).unwrap();
        let name = format!("{newest}/{file}");
        for cut in [bytes.len() / 2, 0] {
            fs::write(&path, &bytes[..cut]).unwrap();
            work.error("train --resume run --steps 6", &[&name, "use another checkpoint"]);
            work.error("eval run", &[&name]);
        }
        fs::remove_file(&path).unwrap();
        let wanted = if file == "state.json" { newest } else { &name };
        work.error("train --resume run --steps 6", &[wanted]);
        fs::write(&path, bytes).unwrap();
    }
    assert_same_files(&work.path(newest), &work.path("whole"));
    fs::write(work.path(newest).join("model.safetensors"), "").unwrap();
    work.ok("train --resume run/checkpoints/step-00000002");
    assert_same_files(&work.path(newest), &work.path("whole"));
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
    refused(
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
    // Below a file nobody can write, not even root.
    work.error("train tiny.toml --out file/run", &["file/run"]);
    work.ok("train tiny.toml --out run");
    work.error("eval run --out file/eval", &["file/eval"]);
    work.error("imagine run red --out file/red.png", &["file/red.png"]);
    work.error("data shapes --samples 2 --heldout 0 --out file/set", &["file/set"]);
    work.error("simulate --timeline file/steps.html", &["file/steps.html"]);
}
