//! Ctrl-C: the first one saves and ends well, the second one ends at once.

use crate::work::{Work, signal, wait, wait_until};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
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

/// A run whose steps are long enough for a second signal to come within one.
const SLOW: &str =
    "train tiny.toml --steps 100000 --set train.batch=2000 --set train.tokens_per_microbatch=4096 --out";

#[test]
fn the_second_ends_at_once() {
    let work = Work::new();
    let mut child = work.command(&format!("{SLOW} run")).spawn().unwrap();
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

#[test]
fn what_batch_systems_send_saves_as_well() {
    let work = Work::new();
    for (name, number) in
        [("usr1", libc::SIGUSR1), ("usr2", libc::SIGUSR2), ("term", libc::SIGTERM), ("hup", libc::SIGHUP)]
    {
        let mut child =
            work.command(&format!("train tiny.toml --steps 100000 --json --out {name}")).spawn().unwrap();
        let metrics = work.path(name).join("metrics.jsonl");
        wait_until(&mut child, || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
        // Said more than once, as by a system that is in a hurry.
        (0..3).for_each(|_| signal(&child, number));
        let ended = wait(child);
        assert_eq!(ended.status.code(), Some(0), "{name}: {}", ended.stderr);
        let value: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let steps = work.steps(name).len();
        assert_eq!(value, serde_json::json!({ "run": name, "step": steps, "finished": false }));
        assert_eq!(work.names(&format!("{name}/checkpoints")), [format!("step-{steps:08}")]);
    }
    // Who was asked already is not impatient at the first Ctrl-C.
    let mut child = work.command(&format!("{SLOW} both")).spawn().unwrap();
    let metrics = work.path("both/metrics.jsonl");
    wait_until(&mut child, || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    signal(&child, libc::SIGUSR1);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "Saving a checkpoint");
    signal(&child, libc::SIGINT);
    std::io::copy(&mut stderr, &mut std::io::sink()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(work.names("both/checkpoints").len(), 1);

    // What was started to outlive its terminal does.
    let mut command = work.command("train tiny.toml --steps 100000 --out nohup");
    // SAFETY: signal is safe to be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let length = || std::fs::metadata(work.path("nohup/metrics.jsonl")).map_or(0, |file| file.len());
    wait_until(&mut child, || length() > 0);
    signal(&child, libc::SIGHUP);
    let before = length();
    wait_until(&mut child, || length() > before + 4000);
    signal(&child, libc::SIGTERM);
    assert!(wait(child).status.success());

    // While everything is still being read, a notice stops the run at its first chance.
    let line = work.read("data/train.jsonl").lines().next().unwrap().to_owned();
    work.write_lines("data/train.jsonl", vec![line; 300_000]);
    let mut child = work.command("train tiny.toml --steps 100000 --json --out early").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none() && !work.path("early").exists());
    signal(&child, libc::SIGUSR1);
    let ended = wait(child);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(work.names("early/checkpoints"), ["step-00000001"]);
}
