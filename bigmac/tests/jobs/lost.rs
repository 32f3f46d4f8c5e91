//! Ranks that are killed, stopped or left without their launcher: every other rank ends in time and says why, and
//! nothing is left behind.

use crate::alone::alone;
use crate::ranks::{SOON, all_have_ended, is_alive, kill, random, ranks};
use crate::work::{Work, assert_same_files, signal, wait, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

const LONG: &str =
    "train tiny.toml --steps 100000 --set model.llm.layers=4 --set train.batch=8 --pp 4 --out run";

/// A run of four ranks that is in the middle of its steps.
fn running(work: &Work, launch: &str) -> (Child, BTreeMap<usize, i32>) {
    let mut child = work.command(&format!("{launch} -- {LONG}")).spawn().unwrap();
    let metrics = work.path("run/metrics.jsonl");
    wait_until(&mut child, || fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3));
    let ranks = ranks(&child);
    assert_eq!(ranks.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    (child, ranks)
}

#[test]
fn a_killed_rank_ends_the_job() {
    let _alone = alone();
    let work = Work::new();
    for lost in [0, 2] {
        let _ = fs::remove_dir_all(work.path("run"));
        let (child, ranks) = running(&work, "launch -n 4");
        kill(ranks[&lost], libc::SIGKILL);
        let began = Instant::now();
        let ended = wait(child);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(ended.status.code(), Some(128 + libc::SIGKILL), "{}", ended.stderr);
        all_have_ended(&ended, &ranks, &[lost], &format!("lost rank {lost} on "));
    }
}

#[test]
fn a_stopped_rank_is_given_up() {
    let _alone = alone();
    let work = Work::new();
    let (child, ranks) = running(&work, "launch -n 4 --peer-timeout 2s");
    kill(ranks[&1], libc::SIGSTOP);
    let began = Instant::now();
    let ended = wait(child);
    assert!(began.elapsed() > Duration::from_millis(1500) && began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
    all_have_ended(&ended, &ranks, &[1], "lost rank 1 on ");
}

#[test]
fn a_launcher_that_is_killed_takes_its_ranks_along() {
    let _alone = alone();
    let work = Work::new();
    let (mut child, ranks) = running(&work, "launch -n 4");
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while ranks.values().any(|pid| is_alive(*pid)) {
        assert!(began.elapsed() < SOON, "ranks outlive their launcher");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_saves_and_ends_all_ranks() {
    let _alone = alone();
    let work = Work::new();
    let (child, ranks) = running(&work, "launch -n 4");
    signal(&child, libc::SIGTERM);
    let ended = wait(child);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("a checkpoint is written"), "{}", ended.stdout);
    assert!(ranks.values().all(|pid| !is_alive(*pid)));
    assert_eq!(work.names("run/checkpoints").len(), 1);
}

/// Kills a random rank at a random moment, `kills` times, while the launcher starts all of them again; the longest time
/// from a kill to ranks that are there again.
fn disturb(work: &Work, child: &mut Child, metrics: &Path, kills: usize, seed: &mut u64) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..kills {
        let lines = || fs::read_to_string(metrics).map_or(0, |text| text.lines().count());
        let (before, wanted) = (lines(), random(seed) % 4);
        let began = Instant::now();
        while ranks(child).len() < 2 || (lines() as u64) < before as u64 + wanted {
            assert!(began.elapsed() < Duration::from_secs(120), "the ranks do not come back");
            if child.try_wait().unwrap().is_some() {
                return longest;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random(seed) % 60));
        let found = ranks(child);
        let Some(pid) = found.get(&((random(seed) % 2) as usize)) else { continue };
        // It may have ended by itself.
        // SAFETY: kill takes any number.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
        let began = Instant::now();
        while found.values().any(|pid| is_alive(*pid)) || ranks(child).len() < 2 {
            if child.try_wait().unwrap().is_some() {
                return longest;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no restart:\n{:?}", work.names("run"));
            std::thread::sleep(Duration::from_millis(2));
        }
        longest = longest.max(began.elapsed());
    }
    longest
}

/// Ten kills; `BIGMAC_KILLS` asks for more (`benches/soak/kills.sh`).
#[test]
fn killed_and_started_again_it_learns_the_same() {
    let _alone = alone();
    let kills = std::env::var("BIGMAC_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let work = Work::new();
    // Enough steps that the run is still there at the last kill.
    let steps = 10 * kills;
    let train = format!(
        "train tiny.toml --steps {steps} --pp 2 --set output.checkpoint_every=2 --set output.keep=3 \
         --set output.final_samples=1"
    );
    work.ok(&format!("{train} --out whole"));
    let launch = format!("launch -n 2 --restarts {} -- {train} --resume auto --out run", 3 * kills);
    let mut child = work.command(&launch).spawn().unwrap();
    let mut seed = 11;
    let longest = disturb(&work, &mut child, &work.path("run/metrics.jsonl"), kills, &mut seed);
    let ended = wait(child);
    assert!(ended.status.success(), "{}", ended.stderr);
    let restarts =
        ended.stderr.lines().filter(|line| line.contains("starting the ranks of this node again")).count();
    eprintln!("{kills} kills, {restarts} restarts, at most {longest:?} until ranks were there again");
    let last = format!("checkpoints/step-{steps:08}");
    assert_same_files(&work.path("whole").join(&last), &work.path("run").join(&last));
    assert_eq!(work.metrics("run"), work.metrics("whole"));
}
