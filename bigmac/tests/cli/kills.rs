//! Runs that are killed at random moments, again and again, and gone on with: nothing tells them from one that was never
//! disturbed.

use crate::work::{Work, assert_same_files};
use std::time::{Duration, Instant};

const STEPS: usize = 60;
/// As many kills as there are moments of different kinds: between steps, within saves, before the first of them.
const KILLS: usize = 50;
/// Of them, those of runs that branched off from an older checkpoint.
const OF_BRANCHES: usize = 20;

/// Random numbers that need no crate: the moments are not to be hit exactly anyway.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as f64 / (1u64 << 31) as f64
}

/// Runs the command until it ends by itself, killing it `kills` times; how many of them it lived to see.
fn disturbed(work: &Work, arguments: &str, longest: f64, kills: usize, seed: &mut u64) -> usize {
    let mut killed = 0;
    loop {
        let mut child = work.command(arguments).spawn().unwrap();
        let (began, after) = (Instant::now(), Duration::from_secs_f64(longest * random(seed)));
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if killed < kills && began.elapsed() > after => break None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        match ended {
            Some(status) => {
                assert!(status.success(), "bigmac {arguments}: {status} after {killed} kills");
                return killed;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
            }
        }
    }
}

#[test]
fn killed_runs_end_as_undisturbed_ones_do() {
    let work = Work::new();
    let train = format!(
        "train tiny.toml --steps {STEPS} --set output.checkpoint_every=3 --set output.keep=3 --set output.final_samples=1"
    );
    let began = Instant::now();
    work.ok(&format!("{train} --out whole"));
    // A run that is killed early is begun again: the longest that it is left alone is most of what it needs.
    let longest = 0.6 * began.elapsed().as_secs_f64();
    let last = format!("checkpoints/step-{STEPS:08}");
    let check = |run: &str| {
        assert_same_files(&work.path("whole").join(&last), &work.path(run).join(&last));
        assert_eq!(work.metrics(run), work.metrics("whole"), "{run}: one course");
    };
    let (mut seed, mut killed, mut of_branches) = (7, 0, 0);
    let mut run = 0;
    while killed - of_branches < KILLS - OF_BRANCHES {
        let name = format!("run{run}");
        killed += disturbed(&work, &format!("{train} --resume auto --out {name}"), longest, 10, &mut seed);
        check(&name);
        run += 1;
    }
    let mut branch = 0;
    while of_branches < OF_BRANCHES {
        let name = format!("branch{branch}");
        let from = "run0/checkpoints";
        let oldest = work.names(from).remove(0);
        // Killed while it is made, perhaps: then it is there, or it is made again.
        let mut child =
            work.command(&format!("train --resume {from}/{oldest} --out {name}")).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(0.2 * longest * random(&mut seed)));
        child.kill().unwrap();
        child.wait().unwrap();
        if !work.path(&name).exists() {
            work.ok(&format!("train --resume {from}/{oldest} --out {name}"));
        }
        let kills =
            1 + disturbed(&work, &format!("{train} --resume auto --out {name}"), longest, 5, &mut seed);
        (killed, of_branches) = (killed + kills, of_branches + kills);
        check(&name);
        branch += 1;
    }
    assert_eq!(work.names("run0/checkpoints").len(), 3, "branches leave the run alone");
}
