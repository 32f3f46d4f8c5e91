//! A run's directory: one run at a time, names that stay below it, permissions of any other file.

use crate::work::{Work, assert_same_files, copy, ended_with, signal, wait, wait_until};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

const LONG: &str =
    "train tiny.toml --steps 100000 --set output.checkpoint_every=2 --set output.keep=2 --out run";

#[test]
fn a_second_run_is_refused_and_told_by_whom() {
    let work = Work::new();
    let mut child = work.command(LONG).spawn().unwrap();
    wait_until(&mut child, || work.path("run/checkpoints/step-00000002").exists());
    let holder = format!("in use by process {} on ", child.id());
    for arguments in
        ["train --resume run", "train tiny.toml --resume auto --out run", "train --resume run --out ./run"]
    {
        work.failure(arguments, &["run is", &holder, "--out"]);
    }
    // Reading goes on beside it.
    work.ok("eval run --samples 1");
    child.kill().unwrap();
    child.wait().unwrap();
    // A crash lets go of it.
    let done = work.steps("run").len() as u64;
    work.ok(&format!("train --resume run --steps {}", done + 2));
    assert_eq!(work.steps("run"), (0..done + 2).collect::<Vec<_>>());
    assert!(!work.path("run/run.lock").exists());

    // Before the first checkpoint as well.
    let mut child = work.command("train tiny.toml --steps 100000 --out early").spawn().unwrap();
    wait_until(&mut child, || {
        fs::metadata(work.path("early/metrics.jsonl")).is_ok_and(|file| file.len() > 0)
    });
    work.failure("train tiny.toml --out early", &["early is in use by process"]);
    signal(&child, libc::SIGTERM);
    assert!(wait(child).status.success());
}

#[test]
fn the_name_of_a_run_stays_below_the_folder_of_runs() {
    let work = Work::new();
    for name in ["..", "../out", "/tmp/out", "a/../../b", ".", "./a"] {
        work.error(&format!("train tiny.toml --set run.name={name}"), &["run.name", "below runs/"]);
    }
    work.ok("train tiny.toml --steps 1 --set run.name=group/first");
    assert_eq!(work.names("runs/group"), ["first"]);
}

#[test]
fn files_have_the_permissions_of_any_other() {
    let work = Work::new();
    work.ok("train tiny.toml --set output.sample_every=2 --out run");
    work.ok("imagine run red --out red.png");
    fs::write(work.path("plain"), "").unwrap();
    let mode = |name: &str| fs::metadata(work.path(name)).unwrap().permissions().mode();
    for name in [
        "red.png",
        "run/drawings.png",
        "run/captions.png",
        "run/samples/step-00000002-drawings.png",
        "run/metrics.jsonl",
        "run/config.toml",
        "run/checkpoints/step-00000003/model.safetensors",
        "run/checkpoints/step-00000003/state.json",
    ] {
        assert_eq!(mode(name), mode("plain"), "{name}");
    }
}

#[test]
fn nothing_but_files_is_written_over() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 1 --out run");
    let fifo = std::ffi::CString::new(work.path("pipe.png").to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    symlink("/dev/null", work.path("null.png")).unwrap();
    symlink("nowhere.png", work.path("dangling.png")).unwrap();
    fs::create_dir(work.path("folder.png")).unwrap();
    for name in ["pipe.png", "null.png", "dangling.png", "folder.png"] {
        work.error(&format!("imagine run red --out {name}"), &[name]);
    }
    let kind = |name: &str| fs::symlink_metadata(work.path(name)).unwrap().file_type();
    assert!(kind("pipe.png").is_fifo() && kind("null.png").is_symlink() && kind("folder.png").is_dir());
    assert!(!work.path("nowhere.png").exists());
    // What a link leads to is written, and the link stays.
    fs::write(work.path("real.png"), "old").unwrap();
    symlink("real.png", work.path("link.png")).unwrap();
    work.ok("imagine run red --out link.png");
    assert!(kind("link.png").is_symlink() && image::open(work.path("real.png")).is_ok());
    for arguments in ["simulate --timeline", "simulate --table"] {
        fs::remove_file(work.path("pipe.png")).unwrap();
        let svg = std::ffi::CString::new(work.path("pipe.png").to_str().unwrap()).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::mkfifo(svg.as_ptr(), 0o600) }, 0);
        symlink(work.path("pipe.png"), work.path("pipe.svg")).unwrap();
        work.error(&format!("{arguments} pipe.svg"), &["pipe.svg", "a pipe"]);
        fs::remove_file(work.path("pipe.svg")).unwrap();
    }
}

#[test]
fn output_that_does_not_fit_is_an_error() {
    let work = Work::new();
    work.ok("train tiny.toml --steps 1 --out run");
    for arguments in ["--help", "--version", "train --help", "simulate --json", "eval run --samples 1 --json"]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = wait(work.command(arguments).stdout(full).spawn().unwrap());
        ended_with(1, &ended, &["could not write to standard output", "No space left"]);
    }
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    copy(&work.path("run"), &work.path("before"));
    assert_eq!(work.json("train --resume run")["finished"], true);
    assert_same_files(&work.path("before"), &work.path("run"));
}
