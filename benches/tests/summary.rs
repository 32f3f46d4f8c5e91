//! The summary of rows and steps: one line for each case, with everything that a reader on a borrowed machine has to
//! decide by.

use std::process::{Command, Output};

fn summary(files: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac-bench"));
    command.arg("summary");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    command.output().unwrap()
}

fn row(more: &str) -> String {
    format!(r#"{{"op":"gemm","pass":"nt","shape":"8x8x8","dtype":"bf16","verdict":"right",{more}}}"#) + "\n"
}

#[test]
fn a_case_is_one_line_of_all_its_rows() {
    let own = row(r#""variant":null,"tflop_per_s":700.0,"share":0.9,"predicted":{"low":680,"high":750}"#);
    let slow = row(r#""variant":100,"tflop_per_s":650.0"#);
    let fast = row(r#""variant":105,"tflop_per_s":730.0"#);
    let beside =
        row(r#""variant":null,"tflop_per_s":705.0,"share":0.91,"ratio":{"median":0.95},"predicted":null"#);
    let output = summary(&[("rows.jsonl", &(own.clone() + &slow + &fast)), ("more.jsonl", &beside)]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{text}");
    for said in ["gemm nt 8x8x8 bf16", "705 TFLOP/s 91 %", "x 0.95 PyTorch", "fastest #105 730"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let output = summary(&[("rows.jsonl", &own)]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("700 TFLOP/s 90 % predicted 680 to 750") && !text.contains("fastest"), "{text}");
}

#[test]
fn a_wrong_variant_is_not_overlooked() {
    let own = row(r#""variant":null,"gb_per_s":3000.0"#);
    let wrong = row(r#""variant":106,"reason":"c is off by 3.0e-1 of its norm""#).replace("right", "wrong");
    let output = summary(&[("rows.jsonl", &(own + &wrong))]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("WRONG #106: c is off") && text.contains("3000 GB/s"), "{text}");
}

#[test]
fn steps_and_empty_files_are_taken_and_others_are_not() {
    let step = r#"{"model":"llama-1b","tokens_per_second":41000.5,"mfu":0.39,"launches":1500,"idle_seconds":0.0021}"#;
    let output = summary(&[("kernels.jsonl", ""), ("step.jsonl", step)]);
    let text = String::from_utf8_lossy(&output.stdout);
    for said in ["llama-1b", "tokens/s", "MFU 39.0 %", "1500 launches", "idle 2.10 ms"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    for (text, said) in [("{\"a\": 1}\n", "line 1"), ("{", "is not JSON")] {
        let output = summary(&[("rows.jsonl", text)]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{text}: {error}");
    }
}
