//! Builds for one processor, on others: an emulator of one from 2008 runs the program.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use bigmac_runtime::processor::Level;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
