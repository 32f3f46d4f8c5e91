//! Which checkpoints a run has.

use super::super::TrainError;
use super::{Checkpoint, Verify};
use bigmac_runtime::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder of checkpoints in a run's directory.
const FOLDER: &str = "checkpoints";
/// Ends the name of what is being written, or removed.
const ASIDE: &str = ".tmp";
/// Stands before that in the name of what is about to be removed.
const REPLACED: &str = ".replaced";
/// Ends the name of a checkpoint that was found damaged.
const DAMAGED: &str = ".damaged";

/// The folder of a run's checkpoints.
pub(in crate::train) fn folder(run: &Path) -> PathBuf {
    run.join(FOLDER)
}

/// The directory of the run that a checkpoint lies in, as RUN/checkpoints/step-N; none for a copy elsewhere.
pub(super) fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let run = |path: &Path| {
        let folder = path.parent().filter(|folder| folder.file_name() == Some(FOLDER.as_ref()))?;
        Some(folder.parent()?.to_owned()).filter(|run| !run.as_os_str().is_empty())
    };
    // A path that is too short to show it, such as `.`, is looked up.
    run(checkpoint).or_else(|| run(&checkpoint.canonicalize().ok()?))
}

/// The name of a step's checkpoint.
pub(super) fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The name under which it is written.
pub(super) fn name_aside(step: u64) -> String {
    name(step) + ASIDE
}

/// The name that one which is replaced has until it is gone.
pub(super) fn name_replaced(step: u64) -> String {
    format!("{}{REPLACED}{ASIDE}", name(step))
}

/// A run's checkpoints with their steps, oldest first.
///
/// # Errors
/// [`TrainError::Runtime`] when the folder cannot be read.
pub(in crate::train) fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let step =
        |found: &str| found.strip_prefix("step-")?.parse::<u64>().ok().filter(|step| name(*step) == found);
    let found = entries(run)?.into_iter().filter(|(_, path)| path.is_dir());
    let mut found: Vec<_> = found.filter_map(|(name, path)| Some((step(&name)?, path))).collect();
    found.sort();
    Ok(found)
}

/// Whether a run has checkpoints, whole or not.
///
/// # Errors
/// [`TrainError::Runtime`] when the folder cannot be read.
pub fn has_checkpoints(run: &Path) -> Result<bool, TrainError> {
    Ok(!list(run)?.is_empty())
}

/// What interrupted saves left.
pub(super) fn asides(run: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let is_aside = |name: &str| {
        let number = name.strip_prefix("step-").and_then(|name| name.strip_suffix(ASIDE));
        let number = number.map(|number| number.strip_suffix(REPLACED).unwrap_or(number));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    Ok(entries(run)?.into_iter().filter(|(name, _)| is_aside(name)).map(|(_, path)| path).collect())
}

/// Names and paths in the folder of checkpoints; empty when the folder does not exist.
fn entries(run: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let folder = folder(run);
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(|e| Error::io(&folder, e))?,
    };
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.map_err(|e| Error::io(&folder, e))?.path();
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
    };
    entries.map(entry).collect()
}

/// A checkpoint that is incomplete, changed or cut short.
#[derive(Debug)]
pub struct Damaged {
    /// Its directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: TrainError,
}

impl Damaged {
    /// Gives its directory another name, so that nothing takes it for a checkpoint any more; returns that.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] when it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf, TrainError> {
        let name = self.path.file_name().unwrap_or_default();
        let numbered = (1u32..).map(|number| {
            let mut name = name.to_owned();
            name.push(if number == 1 { DAMAGED.to_owned() } else { format!("{DAMAGED}-{number}") });
            self.path.with_file_name(name)
        });
        let mut free = numbered.filter(|path| path.symlink_metadata().is_err());
        let to = free.next().unwrap_or_else(|| self.path.clone());
        std::fs::rename(&self.path, &to).map_err(|e| Error::io(&self.path, e))?;
        Ok(to)
    }
}

/// The newest checkpoint of a run that is whole, with each that is newer and damaged; none where the run has no
/// checkpoints.
///
/// # Errors
/// [`TrainError::NoneWhole`] where it has some and none can be used; where one cannot be read for another reason than
/// that it is damaged, that reason: it may be good the next time.
pub fn newest_whole(run: &Path, verify: Verify) -> Result<Option<(Checkpoint, Vec<Damaged>)>, TrainError> {
    let mut damaged = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match Checkpoint::open(&path, verify) {
            Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
            Err(error) if is_damage(&error) => damaged.push(Damaged { path, error }),
            Err(error) => return Err(error),
        }
    }
    match damaged.is_empty() {
        true => Ok(None),
        false => {
            let wrong = damaged.into_iter().map(|damaged| damaged.error).collect();
            Err(TrainError::NoneWhole { run: run.to_owned(), wrong })
        }
    }
}

/// Whether a checkpoint is damaged, and not merely out of reach.
fn is_damage(error: &TrainError) -> bool {
    use ErrorKind::{InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    let kinds = [InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof];
    match error {
        TrainError::Runtime(Error::Io { source, .. }) => kinds.contains(&source.kind()),
        TrainError::Runtime(Error::Format { .. }) => true,
        _ => false,
    }
}
