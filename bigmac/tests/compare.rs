//! `bigmac compare` as a user runs it.

use bigmac_close::{absolute, assert_close};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(command: &str, arguments: &str) -> Output {
    let mut bigmac = Command::new(env!("CARGO_BIN_EXE_bigmac"));
    bigmac.arg(command).args(arguments.split_whitespace()).output().unwrap()
}

fn text(arguments: &str) -> String {
    let output = run("compare", arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(command: &str, arguments: &str) -> Value {
    let output = run(command, &format!("{arguments} --json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(command: &str, arguments: &str) -> String {
    let output = run(command, arguments);
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// The line of a schedule.
fn line<'a>(comparison: &'a Value, schedule: &str) -> &'a Value {
    let lines = comparison["schedules"].as_array().unwrap();
    lines.iter().find(|line| line["schedule"] == schedule).unwrap()
}

const SHAPE: &str = "--ranks 4 --microbatches 16 --cost F=1,B=1,W=1,Ef=2,Eb=4";

#[test]
fn schedules_stand_side_by_side_as_simulate_has_them_alone() {
    let all = json("compare", SHAPE);
    for schedule in ["monolithic", "phased", "nested"] {
        let (line, alone) =
            (line(&all, schedule), json("simulate", &format!("{SHAPE} --schedule {schedule}")));
        for key in ["time", "ideal", "bound", "bubble_rate", "ranks"] {
            assert_eq!(line[key], alone[key], "{schedule} {key}");
        }
    }
    let (monolithic, nested) = (line(&all, "monolithic"), line(&all, "nested"));
    assert_eq!((&monolithic["time"], &monolithic["rank_time"]), (&144.0.into(), &576.0.into()));
    assert_eq!((&nested["ratio"], &nested["rank_time_ratio"]), (&1.0.into(), &1.0.into()));
    let ratio = 144.0 / nested["time"].as_f64().unwrap();
    assert_eq!(monolithic["ratio"].as_f64(), Some(ratio));
    assert_eq!((&monolithic["peak"]["encoder"], &monolithic["utilization"]), (&4.0.into(), &0.5.into()));
    // The reference is there even where it is not asked for.
    let one = json("compare", &format!("{SHAPE} --schedule monolithic,monolithic"));
    assert_eq!(one["schedules"].as_array().unwrap().len(), 1);
    assert_eq!(line(&one, "monolithic")["ratio"].as_f64(), Some(ratio));
}

#[test]
fn peaks_are_in_bytes_where_a_microbatch_is_known() {
    let arguments = format!("{SHAPE} --schedule monolithic --saved encoder=300MiB");
    let all = json("compare", &arguments);
    let peak = &line(&all, "monolithic")["peak_bytes"];
    assert_eq!((&peak["encoder"], &peak["llm"]), (&(1200u64 << 20).into(), &Value::Null));
    let text = text(&arguments);
    assert!(text.lines().any(|line| line.starts_with("monolithic") && line.contains("1.17 GiB")), "{text}");
}

#[test]
fn a_schedule_that_is_not_there_says_why_and_the_others_are() {
    let text = text(&format!("{SHAPE} --schedule phased,nested --budget encoder=2mb"));
    let of = |schedule: &str| text.lines().find(|line| line.starts_with(schedule)).unwrap();
    assert!(of("phased").contains("none: schedule 'phased': encoder activations peak at 4mb on rank 0"));
    assert!(of("nested").contains("1.000"), "{text}");
    let lines = json("compare", &format!("{SHAPE} --schedule phased --budget encoder=2mb"));
    assert!(line(&lines, "phased")["error"].as_str().unwrap().contains("over the budget of 2mb"));
}

#[test]
fn uneven_microbatches_repeat_and_keep_the_work() {
    let drawn = |seed: &str| json("compare", &format!("{SHAPE} --items 8 --uneven {seed} --schedule nested"));
    let one = drawn("1");
    assert_eq!(one, drawn("1,8"));
    assert_ne!(one, drawn("2"));
    assert_ne!(one, drawn("1,4"));
    let items: Vec<u64> =
        one["encoder_items"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!(items.iter().filter(|items| **items == 0).count(), 5, "{items:?}");
    assert!(items.iter().max() > Some(&8), "{items:?}");
    let bound = line(&one, "nested")["bound"].as_f64().unwrap();
    assert_close(bound, 72.0, absolute(1e-9));
}

/// With a third of the microbatches text only and a heavy tail, nested stays at its own bound, and schedules that bind
/// the encoder to ranks wait for the largest microbatch.
#[test]
fn uneven_microbatches_hold_up_others_but_not_nested() {
    for seed in 1..=5 {
        let arguments =
            format!("--ranks 4 --microbatches 32 --cost F=1,B=1,W=1,Ef=2,Eb=4 --items 8 --uneven {seed}");
        let all = json("compare", &arguments);
        let over = |schedule: &str, what: &str| {
            let line = line(&all, schedule);
            line["time"].as_f64().unwrap() / line[what].as_f64().unwrap()
        };
        assert!(over("nested", "ideal") <= 1.03, "seed {seed}: {}", over("nested", "ideal"));
        assert!(over("monolithic-balanced", "ideal") > 1.2, "seed {seed}");
        let ratio = |schedule: &str, key: &str| line(&all, schedule)[key].as_f64().unwrap();
        assert!(
            ratio("monolithic", "ratio") > 1.5 && ratio("monolithic-balanced", "ratio") > 1.2,
            "seed {seed}"
        );
        assert!(ratio("disaggregated", "rank_time_ratio") > 1.3, "seed {seed}");
    }
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("step.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_file_says_what_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        folder.path(),
        "ranks = 4\n[[microbatch]]\nrepeat = 16\nencoder = [[0.5, 1], [0.5, 1], [0.5, 1], [0.5, 1]]\n\
         llm = [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]\n",
    );
    assert_eq!(json("compare", &format!("--workload {path}")), json("compare", SHAPE));
    let nested = "--schedule nested --freeze encoder";
    assert_eq!(
        json("simulate", &format!("{nested} --workload {path}")),
        json("simulate", &format!("{nested} {SHAPE}"))
    );
}

#[test]
fn timelines_of_all_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.svg");
    text(&format!("{SHAPE} --schedule monolithic,nested --timeline {}", path.display()));
    let drawn = std::fs::read_to_string(path).unwrap();
    assert!(drawn.contains("monolithic") && drawn.contains("nested"));
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "ranks = 1\n[[microbatch]]\nllm = [[1, -1, 1]]\n");
    for (arguments, wanted) in [
        ("--schedule nestd", "'nestd' is not a valid schedule (did you mean 'nested'?)"),
        ("--llm 1f1", "'1f1' is not a valid LLM schedule (did you mean '1f1b'?)"),
        ("--cost F=1,B=1,W=nan", "W is 'nan', expected 0, or a number from 1e-100 to 1e100"),
        ("--cost F=1,B=-1,W=1", "B is '-1'"),
        ("--p2p -1", "the latency between ranks is -1"),
        ("--p2p nan", "the latency between ranks is NaN"),
        ("--slowdown 1,1", "expected 4 slowdowns (one per rank), got 2"),
        ("--uneven x", "'x' is not a valid seed"),
        ("--uneven 1,0", "'0' is not a valid mean number of items"),
        ("--ranks 100000 --microbatches 100000", "LLM chunks and items is too large"),
        ("--timeline a.bmp", "'a.bmp' does not say how to draw"),
        (&format!("--workload {path}"), "step.toml:3:12: -1 is not a valid time"),
        (&format!("--workload {path} --ranks 2"), "cannot be used with"),
        ("--workload no.toml", "could not read no.toml"),
    ] {
        let error = error("compare", arguments);
        assert!(error.contains(wanted), "{arguments}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}
