//! Going on from an older checkpoint, or elsewhere: a run of its own, and what was there stays as it was.

use crate::work::{Work, assert_same_files, copy, refused, signal, wait, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;

const TRAIN: &str =
    "train tiny.toml --set train.steps=6 --set output.checkpoint_every=2 --set output.keep=3 --out";

#[test]
fn an_older_checkpoint_goes_on_in_a_directory_of_its_own() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    copy(&work.path("run"), &work.path("before"));
    let whole = work.metrics("run");
    let older = "run/checkpoints/step-00000002";
    for (branch, lr) in [("run-2", "1e-4"), ("run-3", "1e-3")] {
        let ended = work.run(&format!("train --resume {older} --set train.lr={lr}"));
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("note: going on from {older} in {branch}")),
            "{}",
            ended.stderr
        );
        assert!(ended.stdout.contains(&format!("Trained: {branch}")), "{}", ended.stdout);
        let checkpoints = ["step-00000002", "step-00000004", "step-00000006"];
        assert_eq!(work.names(&format!("{branch}/checkpoints")), checkpoints);
        let metrics = work.metrics(branch);
        assert_eq!((metrics.len(), &metrics[..2]), (6, &whole[..2]));
        assert_eq!(metrics[3] == whole[3], lr == "1e-3");
        assert!(work.read(&format!("{branch}/config.toml")).contains("lr = "));
    }
    // The same settings are the same course, bit for bit.
    let last = "checkpoints/step-00000006";
    assert_same_files(&work.path("run").join(last), &work.path("run-3").join(last));
    assert_same_files(&work.path("before"), &work.path("run"));
    assert_eq!(work.json(&format!("train --resume {older} --steps 3"))["run"], "run-4");

    // A branch goes on after the run that it comes from is gone.
    fs::remove_dir_all(work.path("run")).unwrap();
    work.ok("train --resume run-3 --steps 7");
    assert_eq!(work.steps("run-3"), (0..7).collect::<Vec<_>>());
}

#[test]
fn out_names_the_directory_and_nothing_is_written_over() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    copy(&work.path("run"), &work.path("before"));
    let older = "train --resume run/checkpoints/step-00000004";
    work.ok(&format!("{older} --out a/b/other"));
    assert_eq!(work.steps("a/b/other"), (0..6).collect::<Vec<_>>());
    // From a run to another directory: from its newest checkpoint.
    work.ok("train --resume run --steps 7 --out newest");
    assert_eq!(work.names("newest/checkpoints"), ["step-00000006", "step-00000007"]);
    // In place where the directory is the run's own, however it is written.
    work.ok("train --resume run --steps 6 --out ./run/../run");
    assert_same_files(&work.path("before"), &work.path("run"));

    work.error(&format!("{older} --out run"), &["run", "already holds checkpoints", "--out"]);
    work.error(&format!("{older} --out newest"), &["newest", "already holds checkpoints"]);
    work.error(&format!("{older} --out data"), &["data", "not empty"]);
    work.error(&format!("{older} --out tiny.toml"), &["tiny.toml"]);
    fs::create_dir(work.path("empty")).unwrap();
    symlink("empty", work.path("link")).unwrap();
    work.ok(&format!("{older} --out link"));
    assert!(work.path("empty/checkpoints").exists() && work.path("link").is_symlink());
    fs::create_dir(work.path("here")).unwrap();
    let checkpoint = work.path("run/checkpoints/step-00000004");
    let arguments = format!("train --resume {} --out .", checkpoint.display());
    let data = format!(" --set data.path={}", work.path("data").display());
    let ended = wait(work.command(&(arguments + &data)).current_dir(work.path("here")).spawn().unwrap());
    refused(&ended, &["the current one", "--out"]);
    assert_same_files(&work.path("before"), &work.path("run"));
}

#[test]
fn a_branch_begins_with_its_own_settings_although_it_is_killed_before_its_first_checkpoint() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    // It ends at its first step, as if it had been killed there.
    work.failure(
        "train --resume run/checkpoints/step-00000004 --set train.lr=1e30 --set output.checkpoint_every=1",
        &["parameter", "--resume run-2"],
    );
    assert_eq!(work.names("run-2/checkpoints"), ["step-00000004"]);
    let state: Value =
        serde_json::from_str(&work.read("run-2/checkpoints/step-00000004/state.json")).unwrap();
    assert_eq!(state["config"]["train"]["lr"], 1e30);
    work.failure("train --resume run-2", &["parameter"]);
    work.ok("train --resume run-2 --set train.lr=1e-3");
    let last = "checkpoints/step-00000006/model.safetensors";
    assert!(
        fs::read(work.path("run").join(last)).unwrap() == fs::read(work.path("run-2").join(last)).unwrap()
    );
    assert_eq!(work.metrics("run"), work.metrics("run-2"));
}

#[test]
fn paths_that_are_too_short_to_show_the_run_are_looked_up() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    let data = work.path("data");
    let resume = |folder: &str, name: &str, steps: u64| {
        let arguments = format!("train --resume {name} --steps {steps} --set data.path={}", data.display());
        let ended = wait(work.command(&arguments).current_dir(work.path(folder)).spawn().unwrap());
        assert!(ended.status.success(), "{}", ended.stderr);
    };
    resume("run", ".", 4);
    assert_eq!(work.steps("run").len(), 4);
    resume("run/checkpoints", "step-00000004", 5);
    assert_eq!((work.steps("run").len(), work.steps("run-2").len()), (4, 5));
    resume("run-2/checkpoints/step-00000005", ".", 6);
    assert_eq!((work.steps("run-2").len(), work.steps("run-2-2").len()), (5, 6));
    // A copy elsewhere belongs to no run: a new one goes on with it.
    copy(&work.path("run/checkpoints/step-00000004"), &work.path("backup/good"));
    work.ok("train --resume backup/good --steps 5");
    work.ok("train --resume backup/good --steps 5");
    assert_eq!(work.names("runs"), ["shapes", "shapes-2"]);
    assert_eq!(work.names("runs/shapes/checkpoints"), ["step-00000004", "step-00000005"]);
    assert_eq!(work.steps("runs/shapes"), [4]);
}

#[test]
fn auto_begins_a_run_or_goes_on_with_it() {
    let work = Work::new();
    let auto = "train tiny.toml --resume auto --set output.checkpoint_every=2 --out";
    work.ok(&format!("{auto} whole --steps 6"));
    // The same command after each end: before anything was written, before the first checkpoint, after one, at the end.
    work.ok(&format!("{auto} run --steps 0"));
    work.ok(&format!("{auto} run --steps 3"));
    let ended = work.run(&format!("{auto} run --steps 6"));
    assert!(ended.stderr.contains("note: train.steps is 6, and was 3 at the checkpoint"), "{}", ended.stderr);
    let before = work.metrics("run");
    assert_eq!(before.len(), 6);
    let again = work.json(&format!("{auto} run --steps 6"));
    assert_eq!((&again["finished"], &again["step"]), (&true.into(), &6.into()));
    assert_eq!(work.metrics("run"), before);
    // The configuration is that of the file and the command line, not the checkpoint's.
    fs::write(work.path("other.toml"), work.read("tiny.toml").replace("lr = 1e-3", "lr = 1e-4")).unwrap();
    let ended = work.run("train other.toml --resume auto --out run --steps 7");
    assert!(ended.stderr.contains("train.lr is 0.0001, and was 0.001"), "{}", ended.stderr);
    work.error("train tiny.toml --resume auto --out run --set model.llm.mlp=64", &["model.llm.mlp is 32"]);
    work.error("train tiny.toml --resume run", &["'tiny.toml' beside --resume 'run'", "--resume auto"]);
}

#[test]
fn a_run_that_failed_before_its_first_checkpoint_can_be_started_again() {
    let work = Work::new();
    let train = "train tiny.toml --steps 4 --out run";
    work.failure(&format!("{train} --set train.lr=1e30"), &["no checkpoint was written"]);
    let advice = "start it again with `bigmac train run/config.toml --out run`";
    work.error("train --resume run", &[advice]);
    let lost = work.read("run/metrics.jsonl");
    assert!(!lost.is_empty());
    let ended = work.run(train);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("run/metrics.1.jsonl"), "{}", ended.stderr);
    assert_eq!(work.read("run/metrics.1.jsonl"), lost);
    assert_eq!(work.steps("run"), [0, 1, 2, 3]);
    work.failure(&format!("{train}2 --set train.lr=1e30"), &["no checkpoint was written"]);
    work.ok(&format!("{train}2 --resume auto"));
    assert_eq!(work.steps("run2"), [0, 1, 2, 3]);
}

#[test]
fn data_that_changed_is_said() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    let said = |arguments: &str| {
        let ended = work.run(arguments);
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stderr
    };
    assert!(!said("train --resume run --steps 4").contains("changed"));
    let lines: Vec<String> = work.read("data/train.jsonl").lines().map(str::to_owned).collect();
    work.write_lines("data/train.jsonl", &lines[1..]);
    assert!(
        said("train --resume run --steps 5").contains("have changed since the checkpoint (13, and were 14)")
    );
    assert!(!said("train --resume run --steps 6").contains("changed"), "it is the run's own data by now");
    let mut other = lines[1..].to_vec();
    other[0] = other[0].replace("green", "GREEN");
    work.write_lines("data/train.jsonl", &other);
    assert!(said("train --resume run --steps 7").contains("have changed since the checkpoint (13)"));
}

#[test]
fn what_a_killed_branch_leaves_goes_and_runs_with_names_like_it_stay() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    // A run that was killed, under a name that a directory in the making might have.
    for name in ["run-2.tmp", ".run-2.making", ".run-2.exp-1.making"] {
        copy(&work.path("run"), &work.path(name));
        fs::write(work.path(name).join("run.lock"), "process 1 on a machine that is gone").unwrap();
    }
    let left = ".run-2.123456-0.making";
    fs::create_dir(work.path(left)).unwrap();
    fs::write(work.path(left).join("config.toml"), "half").unwrap();
    work.ok("train --resume run/checkpoints/step-00000002 --steps 3");
    assert!(!work.path(left).exists() && work.path("run-2/checkpoints").exists());
    for name in ["run-2.tmp", ".run-2.making", ".run-2.exp-1.making"] {
        assert_same_files(&work.path("run/checkpoints"), &work.path(name).join("checkpoints"));
    }
}

#[test]
fn several_branches_at_once_take_names_of_their_own() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    let branch = || work.command("train --resume run/checkpoints/step-00000002 --json").spawn().unwrap();
    let children: Vec<_> = (0..4).map(|_| branch()).collect();
    let mut runs: Vec<String> = children
        .into_iter()
        .map(|child| {
            let ended = wait(child);
            assert!(ended.status.success(), "{}", ended.stderr);
            let value: Value = serde_json::from_str(&ended.stdout).unwrap();
            value["run"].as_str().unwrap().to_owned()
        })
        .collect();
    runs.sort();
    assert_eq!(runs, ["run-2", "run-3", "run-4", "run-5"]);
    let last = "checkpoints/step-00000006";
    runs.iter().for_each(|run| assert_same_files(&work.path("run").join(last), &work.path(run).join(last)));
}

#[test]
fn a_folder_of_runs_may_be_called_as_that_of_checkpoints_is() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} checkpoints/run"));
    work.ok("train --resume checkpoints/run --steps 7");
    assert_eq!((work.names("checkpoints"), work.steps("checkpoints/run").len()), (vec!["run".to_owned()], 7));
}

#[test]
fn what_is_edited_in_a_branch_is_not_edited_in_the_run() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run"));
    copy(&work.path("run"), &work.path("before"));
    // Weights that lie elsewhere are found from the branch, too.
    let weights = work.path("run/checkpoints/step-00000004/optimizer.safetensors");
    fs::rename(&weights, work.path("stored")).unwrap();
    symlink("../../../stored", &weights).unwrap();
    work.ok("train --resume run/checkpoints/step-00000004 --steps 4 --out branch");
    fs::write(work.path("branch/checkpoints/step-00000004/config.json"), "{}").unwrap();
    fs::remove_file(&weights).unwrap();
    fs::rename(work.path("stored"), &weights).unwrap();
    assert_same_files(&work.path("before/checkpoints"), &work.path("run/checkpoints"));
}

#[test]
fn settings_that_a_crash_forgot_are_said() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run --set train.steps=2"));
    let mut child = work
        .command("train --resume run --steps 100000 --set train.lr=5e-4 --set output.checkpoint_every=0")
        .spawn()
        .unwrap();
    wait_until(&mut child, || work.read("run/metrics.jsonl").lines().count() > 4);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    let ended = work.run("train --resume run --steps 4");
    assert!(ended.status.success(), "{}", ended.stderr);
    let said = "config.toml has train.lr = 0.0005";
    assert!(
        ended.stderr.contains(said) && ended.stderr.contains("--set train.lr=0.0005"),
        "{}",
        ended.stderr
    );
    assert_eq!(work.steps("run"), [0, 1, 2, 3]);
}

#[test]
fn lines_of_metrics_that_another_version_wrote_stay() {
    let work = Work::new();
    work.ok(&format!("{TRAIN} run --set train.steps=2"));
    let mut lines: Vec<String> =
        work.read("run/metrics.jsonl").lines().map(|l| l.replace("\"lr\":", "\"rate\":")).collect();
    lines.insert(1, r#"{"note": "the learning rate was changed by hand"}"#.to_owned());
    // What a crash cut short goes.
    let cut = lines[2][..20].to_owned();
    work.write_lines("run/metrics.jsonl", [&lines[..], &[cut]].concat());
    work.ok("train --resume run --steps 4");
    let after: Vec<String> = work.read("run/metrics.jsonl").lines().map(str::to_owned).collect();
    assert_eq!((after.len(), &after[..3]), (5, &lines[..]));
}
