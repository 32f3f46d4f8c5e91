//! `borrowed.sh` with the real programs, on the replay: that they take what the script asks of them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn the_programs_take_what_the_script_asks() {
    let gpu_tests = Path::new(env!("CARGO_BIN_EXE_gpu-tests"));
    let built = gpu_tests.parent().unwrap();
    let compiler = bigmac_gpu::replay::find_compiler().err();
    let missing = ["bigmac", "bigmac-bench"].into_iter().find(|name| !built.join(name).is_file());
    let missing = missing.map(|name| {
        format!("{} is not built; `cargo test --workspace` builds it", built.join(name).display())
    });
    if let Some(why) = missing.or(compiler) {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("SKIPPED: the script is not run with real programs. {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (bundle, out) = (folder.path().join("bundle"), folder.path().join("out"));
    std::fs::create_dir(&bundle).unwrap();
    std::fs::write(bundle.join("VERSION"), "this build\n").unwrap();
    for name in ["bigmac", "bigmac-bench", "gpu-tests"] {
        symlink(built.join(name), bundle.join(name)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("borrowed.sh");
    let mut command = Command::new("bash");
    command.arg(script).args([&bundle, &out]).arg("replay").env("PARTS", "step,memory").env_remove("BUDGET");
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(output.status.success(), "{printed}\n{log}");
    let summary = std::fs::read_to_string(out.join("summary.txt")).unwrap();
    for model in ["qwen3-1.7b", "llama-1b", "mmdit-1b"] {
        assert!(summary.contains(&format!("step {model}")), "{summary}");
    }
    assert!(summary.contains("tokens/s") && log.contains("passed  memory-exhausted"), "{summary}\n{log}");
}
