//! Builds for one processor, on others: an emulator of one from 2008 runs the program.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use bigmac_runtime::processor::Level;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// SSE4.2 and nothing younger.
const OLD: &str = "Nehalem";

/// The emulator; `None` where it is not installed and this is not CI.
fn emulator() -> Option<&'static str> {
    const NAME: &str = "qemu-x86_64";
    if Command::new(NAME).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return Some(NAME);
    }
    let message = "qemu-x86_64 was not found: install it, as in `apt-get install qemu-user`";
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("skipped: {message}");
    None
}

fn on_old_processor(emulator: &str, program: &Path, args: &[&str]) -> Output {
    Command::new(emulator).args(["-cpu", OLD]).arg(program).args(args).output().expect("the emulator starts")
}

#[test]
fn a_build_for_a_younger_processor_says_so() {
    let Some(emulator) = emulator() else { return };
    if Level::BUILT <= Level::V2 {
        eprintln!("skipped: these tests were built for an old processor");
        return;
    }
    let out = on_old_processor(emulator, Path::new(env!("CARGO_BIN_EXE_bigmac")), &["--version"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(out.stdout.is_empty());
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    for part in
        ["error: this program was built for a processor with", "avx2", "fma", "RUSTFLAGS", "x86-64-v3"]
    {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

/// What a rank of two is told, as torchrun tells it.
fn as_rank(command: &mut Command, rank: usize, port: u16) -> &mut Command {
    for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2)] {
        command.env(name, value.to_string());
    }
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("BIGMAC_JOIN_TIMEOUT", "5").env_remove("BIGMAC_TOKEN")
}

#[test]
fn of_unequal_hosts_the_older_one_says_so_and_the_other_names_its_rank() {
    let Some(emulator) = emulator() else { return };
    if Level::BUILT <= Level::V2 {
        eprintln!("skipped: these tests were built for an old processor");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let program = env!("CARGO_BIN_EXE_bigmac");
    let mut here = Command::new(program);
    let mut older = Command::new(emulator);
    older.args(["-cpu", OLD, program]);
    let run = |command: &mut Command, rank| {
        command.args(["train", "--ranks", "2", "--out", "run"]).current_dir(folder.path());
        as_rank(command, rank, port).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let both = [run(&mut here, 0), run(&mut older, 1)];
    let [here, older] = both.map(|child| child.wait_with_output().expect("it ends"));
    let said = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(older.status.code(), Some(1));
    assert!(said(&older).contains("error: this program was built for a processor with"), "{}", said(&older));
    assert_eq!(here.status.code(), Some(75), "{}", said(&here));
    assert!(said(&here).contains("1 of 2 ranks came within 5 s, missing: rank 1"), "{}", said(&here));
}

/// Builds the program for x86-64-v2, quickly rather than well.
fn build_for_old_processors() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let target = root.join("target/x86-64-v2");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--package", "bigmac", "--bin", "bigmac", "--quiet", "--target-dir"])
        .arg(&target)
        .args(["--config", "profile.dev.opt-level=0", "--config", "profile.dev.debug=false"])
        .args(["bigmac-runtime", "bigmac-gpu", "bigmac-kernels", "*"].iter().flat_map(|package| {
            ["--config".to_owned(), format!("profile.dev.package.\"{package}\".opt-level=0")]
        }))
        .env("RUSTFLAGS", "-C target-cpu=x86-64-v2")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root)
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the build for x86-64-v2 failed");
    target.join("debug/bigmac")
}

#[test]
fn a_build_for_old_processors_runs_on_one() {
    let Some(emulator) = emulator() else { return };
    let old = build_for_old_processors();
    let args = ["simulate", "--schedule", "nested", "--cost", "F=1,B=1,W=1,Ef=2,Eb=4", "--json"];
    let out = on_old_processor(emulator, &old, &args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let here = Command::new(env!("CARGO_BIN_EXE_bigmac")).args(args).output().expect("the program starts");
    assert_eq!(String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&here.stdout));
}
