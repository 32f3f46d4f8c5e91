//! Hostile input: structured mutations of every kind of file and flag, tried on the real program.
//!
//! Whatever it is given, the program does not panic, does not abort under a limit of 8 GB, does not hang for 10 s, says
//! what is wrong in a readable paragraph, touches nothing that is not its output, and ends with 0 only if it did what
//! it was asked. The number of tries is `HOSTILE_TRIES`, the seed `HOSTILE_SEED`; `HOSTILE_ONLY=SEED:INDEX` repeats one
//! try, prints all about it and keeps its folder; `HOSTILE_KINDS=shards,tables` leaves the tries of other kinds out.
//! `HOSTILE_COUNTS` names a file for the counts.

mod attempt;
mod bytes;
mod commands;
mod counts;
mod kinds;
mod process;
mod random;
mod results;
mod snapshot;
mod state;
mod tree;
mod verdict;
mod world;

use anyhow::{Context as _, Result, ensure};
use attempt::Attempt;
use counts::{Counts, Failure};
use kinds::KINDS;
use process::End;
use random::Random;
use snapshot::Snapshot;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

/// Tries where `HOSTILE_TRIES` says nothing.
const TRIES: u64 = 2000;
/// Seed where `HOSTILE_SEED` says nothing.
const SEED: u64 = 12;
/// Most folders of failed tries that are kept.
const KEPT: usize = 40;

/// What all tries share.
struct House {
    binary: PathBuf,
    world: PathBuf,
    /// Where tries run.
    place: PathBuf,
    seed: u64,
    /// Held for writing while a hang is tried again alone: the machine may only have been busy.
    alone: RwLock<()>,
}

#[test]
fn hostile_input_breaks_nothing() -> Result<()> {
    let place = tempfile::tempdir()?;
    let house = House {
        binary: process::binary()?,
        world: place.path().join("world"),
        place: place.path().to_owned(),
        seed: number("HOSTILE_SEED")?.unwrap_or(SEED),
        alone: RwLock::new(()),
    };
    world::prepare(&house.world, &house.binary)?;
    kinds::read_help()?;
    if let Ok(only) = std::env::var("HOSTILE_ONLY") {
        return repeat(house, &only);
    }
    let only = std::env::var("HOSTILE_KINDS").unwrap_or_default();
    let wanted: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    for name in &wanted {
        ensure!(KINDS.iter().any(|kind| kind.0 == *name), "HOSTILE_KINDS: '{name}' is not a kind");
    }
    let tries = number("HOSTILE_TRIES")?.unwrap_or(TRIES);
    let counts = Mutex::new(Counts::default());
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= tries {
                    return Ok(());
                }
                if !wanted.is_empty() && !wanted.contains(&KINDS[kind(index)].0) {
                    continue;
                }
                one(&house, index, &counts).with_context(|| format!("try {}:{index}", house.seed))?;
            }
        };
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in running {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let counts = counts.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    let report = counts.report(house.seed);
    println!("{report}");
    if let Some(path) = std::env::var_os("HOSTILE_COUNTS") {
        std::fs::write(&path, report).with_context(|| format!("could not write {}", path.display()))?;
    }
    ensure!(
        counts.failures.is_empty(),
        "{} of {tries} tries failed; they are listed above",
        counts.failures.len()
    );
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>> {
    let Some(text) = std::env::var_os(name) else { return Ok(None) };
    let text = text.to_string_lossy();
    text.parse().map(Some).with_context(|| format!("{name} must be a number, got '{text}'"))
}

/// Where the folders of failed tries are kept.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile")
}

/// One try in a folder that goes with it, unless it fails.
fn one(house: &House, index: u64, counts: &Mutex<Counts>) -> Result<()> {
    let place = house.place.join(format!("try-{index}"));
    let guard = house.alone.read().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    let mut tried = attempt(house, &place, index)?;
    drop(guard);
    if tried.end == End::Hang {
        let _alone = house.alone.write().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
        std::fs::remove_dir_all(&place)?;
        tried = attempt(house, &place, index)?;
    }
    let mut counts = counts.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    counts.count(KINDS[kind(index)].0, tried.end, tried.seconds);
    if let Some(wrong) = tried.wrong {
        let folder = kept().join(format!("{}-{index}", house.seed));
        if counts.failures.len() < KEPT {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(kept())?;
            // Another file system: then the command alone has to do.
            let _ = std::process::Command::new("cp").arg("-a").arg(&place).arg(&folder).status();
        }
        counts.failures.push(Failure { index, kind: KINDS[kind(index)].0, wrong, command: tried.command });
    }
    drop(counts);
    std::fs::remove_dir_all(&place).with_context(|| format!("could not remove {}", place.display()))
}

fn kind(index: u64) -> usize {
    (index % KINDS.len() as u64) as usize
}

/// What came of a try.
struct Tried {
    end: End,
    seconds: f64,
    command: String,
    wrong: Option<String>,
    said: String,
}

fn attempt(house: &House, place: &Path, index: u64) -> Result<Tried> {
    let mut random = Random::new(house.seed, index);
    let mut attempt = Attempt::new(&house.world, place)?;
    let (_, mutate) = KINDS[kind(index)];
    mutate(&mut attempt, &mut random)?;
    let before = Snapshot::of(place)?;
    let aside = house.place.join(format!("aside-{index}"));
    std::fs::create_dir_all(&aside)?;
    let finished =
        process::run(&house.binary, &attempt.args, &attempt.folder, &aside, attempt.stdout, attempt.long)?;
    let after = Snapshot::of(place)?;
    let mut wrong = verdict::judge(&attempt, &finished, &before, &after).err();
    if let (None, Some(run)) = (&wrong, verdict::trained(&attempt, &finished)) {
        // What was trained opens again: drawing reads all of a checkpoint but the optimizer, and no data set.
        let words = ["imagine", &run, "a red kite", "--steps", "1", "--out", "drawn-again.png"];
        let words = words.map(std::ffi::OsString::from);
        let again =
            process::run(&house.binary, &words, &attempt.folder, &aside, process::Stdout::File, false)?;
        if again.end != End::Code(0) {
            wrong = Some(format!("exit 0: but the run does not open again: {}", again.stderr.trim()));
        }
    }
    std::fs::remove_dir_all(&aside)?;
    let command = format!("{}    ({})", attempt.command(), attempt.notes.join("; "));
    let said = format!("{}{}", String::from_utf8_lossy(&finished.stdout), finished.stderr);
    Ok(Tried { end: finished.end, seconds: finished.seconds, command, wrong, said })
}

/// Repeats one try, `SEED:INDEX`, and keeps its folder as the command left it.
fn repeat(mut house: House, only: &str) -> Result<()> {
    let parts =
        only.split_once(':').and_then(|(seed, index)| Some((seed.parse().ok()?, index.parse().ok()?)));
    let (seed, index) = parts.with_context(|| format!("HOSTILE_ONLY must be SEED:INDEX, got '{only}'"))?;
    house.seed = seed;
    let place = kept().join(format!("{seed}-{index}"));
    let _ = std::fs::remove_dir_all(&place);
    let tried = attempt(&house, &place, index)?;
    println!(
        "{}\n{}\n{:?} after {:.2} s, in {}",
        tried.command,
        tried.said,
        tried.end,
        tried.seconds,
        place.display()
    );
    tried.wrong.map_or(Ok(()), |wrong| Err(anyhow::anyhow!(wrong)))
}
