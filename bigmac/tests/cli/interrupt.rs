//! Ctrl-C: the first one saves and ends well, the second one ends at once.

use crate::work::{Work, signal, wait, wait_until};
use std::io::{BufRead, BufReader};
use std::process::Child;

/// Waits for the first step and interrupts the run at the beginning of the next one.
fn interrupt(work: &Work, run: &str, child: &mut Child) {
    let metrics = work.path(run).join("metrics.jsonl");
    wait_until(child, || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    signal(child, libc::SIGINT);
}

#[test]
fn the_first_saves_and_the_run_goes_on_from_there() {
    let work = Work::new();
    for json in [false, true] {
        let run = if json { "json" } else { "text" };
        let flag = if json { "--json" } else { "" };
        let mut child =
            work.command(&format!("train tiny.toml --steps 100000 {flag} --out {run}")).spawn().unwrap();
        interrupt(&work, run, &mut child);
        let ended = wait(child);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("Saving a checkpoint"), "{}", ended.stderr);
        let steps = work.metrics(run).len();
        if json {
            let value: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(value, serde_json::json!({ "run": run, "step": steps, "finished": false }));
        } else {
            assert!(
                ended.stdout.contains(&format!("Stopped after step {steps} of 100000")),
                "{}",
                ended.stdout
            );
            assert!(ended.stdout.contains("bigmac train --resume text"), "{}", ended.stdout);
        }
        assert_eq!(work.names(&format!("{run}/checkpoints")), [format!("step-{steps:08}")]);
        work.ok(&format!("train --resume {run} --steps {}", steps + 2));
        let numbers: Vec<u64> = work.metrics(run).iter().map(|m| m["step"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..steps as u64 + 2).collect::<Vec<_>>());
    }
}

#[test]
fn the_second_ends_at_once() {
    let work = Work::new();
    // Steps that are long enough for a second signal to come within one.
    let arguments = "train tiny.toml --steps 100000 --set train.batch=2000 --set train.tokens_per_microbatch=4096 --out run";
    let mut child = work.command(arguments).spawn().unwrap();
    interrupt(&work, "run", &mut child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "Saving a checkpoint");
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!work.path("run/checkpoints").exists());
}

#[test]
fn one_is_enough_once_everything_is_saved() {
    let work = Work::new();
    let line = work.read("data/heldout.jsonl").lines().next().unwrap().to_owned();
    work.write_lines("data/heldout.jsonl", vec![line; 20_000]);
    let arguments = "train tiny.toml --steps 1 --set output.final_samples=20000 --out run";
    let mut child = work.command(arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "evaluating");
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(work.names("run/checkpoints"), ["step-00000001"]);
    // The evaluation is what is left to do.
    let eval = work.json("eval run --samples 2");
    assert_eq!(eval["samples"], 2);
}

fn read_until(stderr: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "'{wanted}' was never said");
    }
}
