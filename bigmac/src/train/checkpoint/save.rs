//! Writing checkpoints: aside, synced, renamed; and removing old ones.

use super::super::TrainError;
use super::super::snapshot::Snapshot;
use super::state::{DataState, STATE, State, sha256};
use super::{Checkpoint, GENERATOR, OPTIMIZER, list};
use crate::config::Config;
use crate::model::{ModelShape, RankModules};
use bigmac_models::llava;
use bigmac_models::mmdit::{DIFFUSERS, Mmdit};
use bigmac_models::weights::{self, Part};
use bigmac_runtime::fs::sync_directory;
use bigmac_runtime::safetensors::{self, NamedBytes};
use bigmac_runtime::{Context, Error};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a checkpoint is made of beside weights and optimizer state.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// The run's configuration.
    pub config: &'a Config,
    /// The samples that it learns from.
    pub data: &'a DataState,
    /// Steps done.
    pub step: u64,
}

/// Writes `snapshot` as a checkpoint of `run`, and removes all but the newest of those up to it, as many as are to be
/// kept. What has a later step is left alone: nothing that was not written before this is older.
///
/// # Errors
/// [`TrainError::Weights`] when weights have overflown; [`TrainError::Save`] when a file cannot be written (no space
/// left). Checkpoints that were there stay as they were.
pub fn save(
    ctx: &Context,
    run: &Path,
    snapshot: &Snapshot,
    saved: &Saved<'_>,
) -> Result<PathBuf, TrainError> {
    let step = saved.step;
    if let Some(parameter) = snapshot.overflown(ctx)? {
        return Err(TrainError::Weights { step: step.saturating_sub(1), parameter });
    }
    let folder = list::folder(run);
    let target = folder.join(list::name(step));
    let aside = folder.join(list::name_aside(step));
    let whole = snapshot.whole_model(ctx, saved.shape)?;
    let written = (|| {
        list::asides(run)?.iter().try_for_each(|path| remove(path))?;
        std::fs::create_dir_all(&aside).map_err(|e| Error::io(&aside, e))?;
        write_files(&aside, &whole, snapshot, saved)?;
        put(&aside, &target, &folder.join(list::name_replaced(step)))
    })();
    written.map_err(|cause| {
        // The error to report is that of writing; what cannot be removed now is removed by the next save.
        let _ = remove(&aside);
        TrainError::Save { path: target.clone(), cause: Box::new(cause) }
    })?;
    prune(run, saved.config.output.keep, step)?;
    Ok(target)
}

/// Renames `aside` to `target`. What is there, a checkpoint that could not be used, is moved away before and removed
/// after.
fn put(aside: &Path, target: &Path, replaced: &Path) -> Result<(), TrainError> {
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|e| Error::io(to, e));
    let is_there = target.symlink_metadata().is_ok();
    if is_there {
        rename(target, replaced)?;
    }
    rename(aside, target)?;
    sync_directory(target).map_err(|e| Error::io(target, e))?;
    if is_there { remove(replaced) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e).into()),
        _ => Ok(()),
    }
}

fn write_files(
    aside: &Path,
    whole: &RankModules,
    snapshot: &Snapshot,
    saved: &Saved<'_>,
) -> Result<(), TrainError> {
    let shape = saved.shape;
    let stages: Vec<_> = whole.llm.list.iter().map(|(_, s)| (s.net.stage(), &s.params)).collect();
    llava::save(aside, &shape.llava, &whole.encoder.whole()?.params, &stages)?;
    let generator = whole.generator.whole()?;
    let generator = Part { specs: &generator.specs, parameters: &generator.params };
    let all = Mmdit::parameters(&shape.generator);
    let folder = aside.join(GENERATOR);
    weights::write_directory(&folder, shape.generator.to_json(), DIFFUSERS, &[generator], &all)?;
    let state = snapshot.optimizer.iter().map(|(name, tensor)| NamedBytes::new(name, tensor));
    let state = state.collect::<bigmac_runtime::Result<Vec<_>>>()?;
    safetensors::write(&aside.join(OPTIMIZER), &state, &BTreeMap::new())?;
    let checksum = |name: String| Ok((name.clone(), sha256(&aside.join(name))?));
    let checksums = super::weight_files().chain([OPTIMIZER.to_owned()]).map(checksum);
    let checksums = checksums.collect::<Result<_, TrainError>>()?;
    // Last, so that a directory with it is whole.
    State::new(saved.step, saved.config.clone(), saved.data.clone(), checksums).write(aside)
}

/// Keeps the checkpoint of step `newest` and the `keep` - 1 before it.
fn prune(run: &Path, keep: usize, newest: u64) -> Result<(), TrainError> {
    let mut up_to: Vec<_> = list::list(run)?.into_iter().filter(|(step, _)| *step <= newest).collect();
    up_to.drain(..up_to.len().saturating_sub(keep)).try_for_each(|(step, path)| {
        // Renamed before, so that a half removed one is not taken for a checkpoint.
        let replaced = list::folder(run).join(list::name_replaced(step));
        std::fs::rename(&path, &replaced).map_err(|e| Error::io(&path, e))?;
        remove(&replaced)
    })
}

/// Puts `checkpoint` into the directory of another run, as the one that it begins with, under that run's configuration.
/// Weights are shared with the original where the file system can (checkpoints are never written in place), so that the
/// original may go.
///
/// # Errors
/// [`TrainError::Save`].
pub(in crate::train) fn adopt(
    checkpoint: &Checkpoint,
    run: &Path,
    config: &Config,
) -> Result<(), TrainError> {
    let State { step, data, sha256, .. } = checkpoint.state().clone();
    let target = list::folder(run).join(list::name(step));
    let adopted = (|| {
        copy_files(checkpoint.path(), &target)?;
        State::new(step, config.clone(), data, sha256).write(&target)
    })();
    adopted.map_err(|cause| TrainError::Save { path: target, cause: Box::new(cause) })
}

/// Links or copies every file below `from` to the same place below `to`, but for the state. What people edit is copied.
fn copy_files(from: &Path, to: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, e))?;
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_files(&path, &target)?;
        } else if path.file_name() != Some(STATE.as_ref()) && !is_linked(&path, &target) {
            std::fs::copy(&path, &target).map_err(|e| Error::io(&target, e))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(|e| Error::io(&target, e))?;
        }
    }
    Ok(sync_directory(to).map_err(|e| Error::io(to, e))?)
}

/// Makes a hard link to a weight file, where that can be.
fn is_linked(path: &Path, target: &Path) -> bool {
    // A symbolic link leads elsewhere from another place: what it leads to is linked.
    let real = path.extension().filter(|end| *end == "safetensors").and_then(|_| path.canonicalize().ok());
    real.is_some_and(|real| std::fs::hard_link(real, target).is_ok())
}
