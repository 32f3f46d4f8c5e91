//! The lab on a replay: kernels are checked, wrong ones are found, and rows say what they should.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn lab(args: &str, kernels: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac-bench"));
    command.arg("kernels").args(args.split_whitespace()).env_remove("BIGMAC_KERNEL_DIR");
    if let Some(directory) = kernels {
        command.env("BIGMAC_KERNEL_DIR", directory);
    }
    command.output().unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Whether there is a compiler for a replay; without one that is said, and is a failure where the variable `CI` is set.
fn can_replay() -> bool {
    match bigmac_gpu::replay::find_compiler() {
        Ok(_) => true,
        Err(message) => {
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("SKIPPED: no kernel is checked. {message}");
            false
        }
    }
}

const REPLAYED: &str = "--device replay --small --no-peer --json --dtype bf16";

#[test]
fn kernels_are_checked_and_rows_say_what_they_are() {
    if !can_replay() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let output = lab(&format!("{REPLAYED} --op rms_norm,adamw --out {}", file.display()), None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = rows(&output);
    let saved = std::fs::read_to_string(&file).unwrap();
    assert_eq!(saved.lines().count(), rows.len());
    // Two shapes of two passes, and one of one.
    assert_eq!(rows.len(), 5);
    for row in &rows {
        assert_eq!((&row["verdict"], &row["device"]), (&"right".into(), &rows[0]["device"]), "{row}");
        let error = row["error"].as_f64().unwrap();
        assert!(error < 4e-3 && row["bytes"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["seconds"].is_null() && row["share"].is_null(), "a replay was timed: {row}");
        assert!(row["command"].as_str().unwrap().contains("--op rms_norm,adamw"));
    }
    // x, w, y and one reciprocal root per row.
    let bytes = |rows: f64, width: f64| 2.0 * (2.0 * rows * width + width) + 4.0 * rows;
    assert_eq!(rows[0]["shape"], "7x40");
    assert_eq!(rows[0]["bytes"].as_f64(), Some(bytes(7.0, 40.0)));
}

#[test]
fn times_come_with_rates_and_shares() {
    if !can_replay() {
        return;
    }
    let output = lab(&format!("{REPLAYED} --time-replay --samples 3 --op rms_norm --shape 7x40"), None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for row in rows(&output) {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"));
        let median = row["seconds"]["median"].as_f64().unwrap();
        assert!(median > 0.0 && row["seconds"]["lower"].as_f64().unwrap() <= median, "{row}");
        assert!(median * number("runs") > 0.01 || number("runs") >= 20_000.0, "{row}");
        assert!((number("gb_per_s") * 1e9 * median / number("bytes") - 1.0).abs() < 1e-9, "{row}");
        assert_eq!((&row["ceiling"], number("sets")), (&"copy".into(), 64.0), "{row}");
        assert!(number("share") > 0.0 && row["ratio"].is_null(), "{row}");
    }
}

#[test]
fn a_wrong_kernel_is_reported_and_fails() {
    if !can_replay() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = include_str!("../../kernels/src/rms_norm/kernel.cu");
    let broken = source.replacen("rsqrtf(", "1.01f * rsqrtf(", 1);
    assert_ne!(broken, source, "the test expects rsqrtf( in the kernel");
    std::fs::create_dir_all(folder.path().join("rms_norm")).unwrap();
    std::fs::write(folder.path().join("rms_norm/kernel.cu"), broken).unwrap();
    let output = lab(&format!("{REPLAYED} --op rms_norm --shape 7x40"), Some(folder.path()));
    assert!(!output.status.success());
    let rows = rows(&output);
    assert_eq!(rows[0]["verdict"], "wrong", "{}", rows[0]);
    assert!(rows[0]["reason"].as_str().unwrap().contains("output 0"), "{}", rows[0]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("rms_norm forward 7x40 bf16"), "{said}");
}

#[test]
fn what_is_not_there_is_said() {
    for (args, wanted) in [
        ("--device replay --op nonsense", "nonsense"),
        ("--device replay --shape 3x4", "--op"),
        ("--device replay --op norms --shape 3x4x5", "rowsxwidth"),
        ("--device gpu7", "'cuda:N'"),
        ("--device replay --shape 3by4", "8192x4096"),
    ] {
        let output = lab(args, None);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{args}: {said}");
    }
    let listed = lab("--list", None);
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(text.contains("attention: sequencesxtokens") && text.contains("8192x8192x8192"), "{text}");
}

#[test]
fn what_was_predicted_stands_beside_what_an_operator_chooses() {
    if !can_replay() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("predicted.toml");
    let row = |shape: &str, low: u32| {
        format!("[[row]]\nop = \"gemm\"\npass = \"nt\"\n{shape}\nlow = {low}\nhigh = 9\n")
    };
    std::fs::write(&file, row("", 1) + &row("shape = \"5x40x24\"", 7)).unwrap();
    let args = |shape: &str, more: &str| {
        format!("{REPLAYED} --op gemm --shape {shape} --predicted {} {more}", file.display())
    };
    for (shape, low) in [("5x40x24", 7.0), ("5x16x24", 1.0)] {
        let output = lab(&args(shape, "--choice"), None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = rows(&output);
        // Three layouts, and no variant of any.
        assert_eq!(rows.len(), 3);
        for row in rows {
            let wanted = if row["pass"] == "nt" { Some(low) } else { None };
            assert_eq!(row["predicted"]["low"].as_f64(), wanted, "{row}");
            assert!(row["variant"].is_null(), "{row}");
        }
    }
    std::fs::write(&file, "[[row]]\nop = \"gemm\"\nspeed = 3\n").unwrap();
    let output = lab(&args("5x40x24", ""), None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("predicted.toml") && said.contains("speed"), "{said}");
}

#[test]
fn a_quick_lab_has_a_shape_of_every_family() {
    let listed = lab("--quick --list", None);
    let text = String::from_utf8_lossy(&listed.stdout);
    for family in ["gemm", "attention", "cross-entropy", "norms", "optimizer"] {
        assert!(text.contains(&format!("{family}: ")), "{text}");
    }
    let some = lab("--quick --list --op attention", None);
    let text = String::from_utf8_lossy(&some.stdout);
    assert!(text.contains("1x16384x32x8x128x1") && !text.contains("gemm"), "{text}");
    let both = lab("--quick --small --list", None);
    assert!(String::from_utf8_lossy(&both.stderr).contains("--small"));
}
