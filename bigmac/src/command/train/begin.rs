//! Where a run begins, and which directory it writes to.

use super::TrainArgs;
use crate::command::exit::BadInput;
use crate::command::suggest::argument;
use bigmac::config::{self, Config, all_differences};
use bigmac::train::{Checkpoint, Damaged, RunFolder, TrainError, Verify, has_checkpoints, newest_whole};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The value of `--resume` that goes on with a run where there is one.
pub(super) const AUTO: &str = "auto";

/// What `--resume` is for ranks that were started again: what they had begun before is gone on with.
///
/// # Errors
/// For a checkpoint, from which another branch would begin.
pub(super) fn after_restart(resume: Option<PathBuf>) -> Result<PathBuf, BadInput> {
    match resume {
        None => Ok(AUTO.into()),
        Some(checkpoint) if Checkpoint::is_at(&checkpoint) => Err(BadInput(format!(
            "the ranks were started again, and --resume {} would begin another branch; go on with --resume RUN, the run \
             that was begun",
            checkpoint.display()
        ))),
        Some(resume) => Ok(resume),
    }
}

/// Where a run begins.
pub(super) struct Begin {
    /// Its configuration.
    pub config: Config,
    /// From what, and in which directory.
    pub start: Start,
    /// What is to be said of it.
    pub notes: Vec<String>,
}

/// What a run starts from, and the directory that it writes to.
pub(super) enum Start {
    /// From the beginning, in a directory that no run has; `auto`: unless another process begins one there first.
    New { run: PathBuf, auto: bool },
    /// From a run's newest checkpoint, in place.
    GoOn(Checkpoint, Rc<RunFolder>),
    /// From any checkpoint, in another directory; none: the first that is free.
    Branch(Checkpoint, Option<PathBuf>),
}

impl Begin {
    /// What the command line asks for. Nothing is written but the lock of a run that goes on.
    pub fn new(args: &TrainArgs) -> anyhow::Result<Begin> {
        let auto = args.resume.as_deref().is_some_and(|path| path == Path::new(AUTO));
        let Some(resume) = args.resume.as_deref().filter(|_| !auto) else {
            let config = config::read(args.config.as_deref(), &args.settings())?;
            let run = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&config.run.name));
            if auto && has_checkpoints(&run)? {
                return Begin::go_on(&run, args.verify(), |checkpoint| {
                    Ok((with_schedule_of(checkpoint, config), Vec::new()))
                });
            }
            return Ok(Begin { config, start: Start::New { run, auto }, notes: Vec::new() });
        };
        if let Some(file) = &args.config {
            let (file, resume) = (file.display(), resume.display());
            let message = format!(
                "'{file}' beside --resume '{resume}': a run goes on with its own configuration; change single keys with \
                 --set, or give --resume auto to go on with the configuration of the file"
            );
            return Err(BadInput(message).into());
        }
        let change =
            |checkpoint: &Checkpoint| Ok(config::change(&checkpoint.state().config, &args.settings())?);
        if Checkpoint::is_at(resume) {
            let checkpoint = Checkpoint::open(resume, args.verify())?;
            return Begin::branch(checkpoint, Vec::new(), args.out.clone(), change);
        }
        if !has_checkpoints(resume)? {
            return Err(BadInput(no_checkpoint(resume)).into());
        }
        match &args.out {
            Some(out) if !is_same(out, resume) => {
                let (checkpoint, damaged) = whole(resume, args.verify())?;
                Begin::branch(checkpoint, damaged, args.out.clone(), change)
            }
            _ => Begin::go_on(resume, args.verify(), |checkpoint| {
                let config = change(checkpoint)?;
                let notes = forgotten(resume, &config);
                Ok((config, notes))
            }),
        }
    }

    /// From the newest checkpoint of a run, in place.
    fn go_on(
        run: &Path,
        verify: Verify,
        config: impl FnOnce(&Checkpoint) -> anyhow::Result<(Config, Vec<String>)>,
    ) -> anyhow::Result<Begin> {
        // Held before its checkpoints are read, which another process might still write and remove.
        let folder = RunFolder::hold(run)?;
        let (checkpoint, damaged) = whole(run, verify)?;
        let (config, forgotten) = config(&checkpoint)?;
        let mut notes = Vec::new();
        for damaged in &damaged {
            // Else a later command would take it for the newest, or this run write over it.
            let kept = damaged.set_aside()?;
            notes.push(format!("{}; it is {} now", unusable(damaged, &checkpoint), kept.display()));
        }
        notes.extend(folder.notes.iter().cloned());
        notes.extend(changes(&checkpoint, &config));
        notes.extend(forgotten);
        Ok(Begin { config, start: Start::GoOn(checkpoint, Rc::new(folder)), notes })
    }

    /// From a checkpoint, in another directory.
    fn branch(
        checkpoint: Checkpoint,
        damaged: Vec<Damaged>,
        to: Option<PathBuf>,
        config: impl FnOnce(&Checkpoint) -> anyhow::Result<Config>,
    ) -> anyhow::Result<Begin> {
        let config = config(&checkpoint)?;
        let notes = damaged.iter().map(|damaged| unusable(damaged, &checkpoint)).collect();
        Ok(Begin { config, start: Start::Branch(checkpoint, to), notes })
    }
}

impl Start {
    /// The checkpoint that the run goes on from.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Start::New { .. } => None,
            Start::GoOn(checkpoint, _) | Start::Branch(checkpoint, _) => Some(checkpoint),
        }
    }

    /// Makes the directory the run's own, and says what is to be known of that.
    pub fn claim(&self, config: &Config) -> Result<(Rc<RunFolder>, Vec<String>), TrainError> {
        let (folder, mut notes) = match self {
            Start::GoOn(_, folder) => return Ok((folder.clone(), Vec::new())),
            Start::New { run, auto: true } if has_checkpoints(run)? => {
                return Err(TrainError::Begun { run: run.clone() });
            }
            Start::New { run, .. } => (RunFolder::start(run, config)?, Vec::new()),
            Start::Branch(checkpoint, to) => {
                let folder = RunFolder::branch(checkpoint, to.as_deref(), config)?;
                let (from, to) = (checkpoint.path().display(), folder.path().display());
                let note = format!("going on from {from} in {to}; what was there before stays as it is");
                (folder, vec![note])
            }
        };
        notes.extend(folder.notes.iter().cloned());
        Ok((Rc::new(folder), notes))
    }
}

/// What a run's schedule was chosen to be when it began stays: it goes on bit for bit.
fn with_schedule_of(checkpoint: &Checkpoint, mut config: Config) -> Config {
    if config.pipeline.schedule == config::AUTO {
        config.pipeline.schedule.clone_from(&checkpoint.state().config.pipeline.schedule);
    }
    config
}

fn whole(run: &Path, verify: Verify) -> anyhow::Result<(Checkpoint, Vec<Damaged>)> {
    Ok(newest_whole(run, verify)?.ok_or_else(|| BadInput(no_checkpoint(run)))?)
}

/// A sentence on a newer checkpoint that is not used.
fn unusable(damaged: &Damaged, used: &Checkpoint) -> String {
    let (error, used) = (&damaged.error, used.path().display());
    format!("a newer checkpoint cannot be used ({error}); going on from {used}")
}

/// A sentence for each key that is not what it was.
fn changes(checkpoint: &Checkpoint, config: &Config) -> Vec<String> {
    let changed = all_differences(&checkpoint.state().config, config);
    changed.iter().map(|(key, was, is)| format!("{key} is {is}, and was {was} at the checkpoint")).collect()
}

/// A sentence for each key that a run's `config.toml` has otherwise: it went on with other settings once, and ended
/// before a checkpoint had them.
fn forgotten(run: &Path, config: &Config) -> Vec<String> {
    let Ok(written) = config::read(Some(&run.join("config.toml")), &[]) else { return Vec::new() };
    let changed = all_differences(&written, config).into_iter().filter(|(key, ..)| key != "train.steps");
    let sentence = |(key, was, is): (String, String, String)| {
        format!(
            "config.toml has {key} = {was}, from an attempt that no checkpoint was written of: the run goes on with {is}; \
             give --set {key}={was} again to have it"
        )
    };
    changed.map(sentence).collect()
}

fn no_checkpoint(path: &Path) -> String {
    let (shown, config) = (path.display(), path.join("config.toml"));
    if config.exists() {
        let (config, out) = (argument(&config.display().to_string()), argument(&shown.to_string()));
        return format!(
            "{shown}: the run ended before its first checkpoint; start it again with `bigmac train {config} --out {out}`"
        );
    }
    format!("{shown}: no checkpoint here; give a run's directory, or one of its checkpoints/step-...")
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
