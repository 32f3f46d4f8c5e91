//! Which checkpoints a run has.

use super::super::TrainError;
use super::{Checkpoint, Verify};
use bigmac_runtime::Error;
use std::path::{Path, PathBuf};

/// The folder of checkpoints in a run's directory.
const FOLDER: &str = "checkpoints";
/// Ends the name of what is being written, or removed.
const ASIDE: &str = ".tmp";

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
    format!("{}.replaced{ASIDE}", name(step))
}

/// A run's checkpoints with their steps, oldest first.
///
/// # Errors
/// [`TrainError::Runtime`] when the folder cannot be read.
pub(in crate::train) fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let step = |name: &str| name.strip_prefix("step-")?.parse::<u64>().ok();
    let mut found: Vec<_> =
        entries(run)?.into_iter().filter_map(|(name, path)| Some((step(&name)?, path))).collect();
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
    let is_aside = |name: &str| name.starts_with("step-") && name.ends_with(ASIDE);
    Ok(entries(run)?.into_iter().filter(|(name, _)| is_aside(name)).map(|(_, path)| path).collect())
}

/// Names and paths in the folder of checkpoints; none where there is no folder.
fn entries(run: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let folder = folder(run);
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io(&folder, e))?,
    };
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.map_err(|e| Error::io(&folder, e))?.path();
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
    };
    entries.map(entry).collect()
}

/// The newest checkpoint of a run that is whole, with what is wrong with each that is newer; none where the run has no
/// checkpoints.
///
/// # Errors
/// [`TrainError::NoneWhole`] where it has some and none can be used.
pub fn newest_whole(run: &Path, verify: Verify) -> Result<Option<(Checkpoint, Vec<TrainError>)>, TrainError> {
    let mut wrong = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match Checkpoint::open(&path, verify) {
            Ok(checkpoint) => return Ok(Some((checkpoint, wrong))),
            Err(error) => wrong.push(error),
        }
    }
    match wrong.is_empty() {
        true => Ok(None),
        false => Err(TrainError::NoneWhole { run: run.to_owned(), wrong }),
    }
}
