//! A run's directory: begun, gone on with, or branched off from another run's checkpoint. Whatever is done, nothing that
//! a run has written before is changed or removed.

use super::TrainError;
use super::checkpoint::{Checkpoint, adopt, has_checkpoints};
use super::lock::{RunLock, was_held};
use super::metrics::{self, MetricsFile};
use crate::config::{self, Config};
use bigmac_runtime::Error;
use bigmac_runtime::fs::{sync_directory, write_atomically};
use std::path::{Path, PathBuf};

/// The resolved configuration in a run's directory.
const CONFIG: &str = "config.toml";

/// The directory of a run that is about to train, which this process alone writes to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    lock: RunLock,
    /// Sentences on what was found there.
    pub notes: Vec<String>,
}

impl RunFolder {
    /// A directory for a new run, made if it is not there. What a run left that ended before its first checkpoint is
    /// moved aside.
    ///
    /// # Errors
    /// [`Error::Format`] when it holds checkpoints of a run, or a `config.toml` that no run wrote;
    /// [`TrainError::InUse`].
    pub fn start(path: &Path, config: &Config) -> Result<RunFolder, TrainError> {
        check_unused(path)?;
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock = RunLock::take(path)?;
        // Now that no other process can write to it.
        check_unused(path)?;
        let mut folder = RunFolder { path: path.to_owned(), lock, notes: Vec::new() };
        folder.warn();
        if let Some(kept) = metrics::set_aside(path)? {
            let (path, kept) = (path.display(), kept.display());
            folder.notes.push(format!(
                "{path} has metrics of a run that ended before its first checkpoint: it begins again, and they are in {kept}"
            ));
        }
        // Before the configuration, which without them is taken for a user's.
        MetricsFile::copy(None, path, 0)?;
        folder.write_config(config)?;
        Ok(folder)
    }

    /// The directory of a run that goes on.
    ///
    /// # Errors
    /// [`TrainError::InUse`]; those of the file system.
    pub fn hold(run: &Path) -> Result<RunFolder, TrainError> {
        let mut folder = RunFolder { path: run.to_owned(), lock: RunLock::take(run)?, notes: Vec::new() };
        folder.warn();
        Ok(folder)
    }

    /// A new directory for a run that goes on from `checkpoint`: with that checkpoint and with the metrics of the steps
    /// before it, so that it is a run of its own from its first moment. Without `to` it is the first free one of RUN-2,
    /// RUN-3, ..., beside the run that the checkpoint is of; where it lies in none, of `runs/NAME`, `runs/NAME-2`, ...
    ///
    /// # Errors
    /// [`Error::Format`] when `to` is not empty; [`TrainError::Save`] and those of the file system.
    pub fn branch(
        checkpoint: &Checkpoint,
        to: Option<&Path>,
        config: &Config,
    ) -> Result<RunFolder, TrainError> {
        let path = match to {
            Some(to) => to.to_owned(),
            None => first_free(checkpoint, config)?,
        };
        check_unused(&path)?;
        if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) || path.is_file() {
            let message = "the directory is not empty; name another with --out";
            return Err(Error::format(&path, message).into());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let aside = path.with_file_name(name);
        let lock = make_aside(&aside)?;
        let mut folder = RunFolder { path: aside.clone(), lock, notes: Vec::new() };
        folder.warn();
        let made = (|| {
            adopt(checkpoint, &aside, config)?;
            let step = checkpoint.state().step;
            MetricsFile::copy(checkpoint.run().as_deref(), &aside, step)?;
            folder.write_config(config)?;
            std::fs::rename(&aside, &path).map_err(|e| Error::io(&path, e))?;
            Ok::<(), TrainError>(sync_directory(&path).map_err(|e| Error::io(&path, e))?)
        })();
        if let Err(error) = made {
            // The error to report is the first; what stays is removed by the next branch of that name.
            let _ = std::fs::remove_dir_all(&aside);
            return Err(error);
        }
        folder.lock.moved_to(&path);
        folder.path = path;
        Ok(folder)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the resolved configuration there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write_config(&self, config: &Config) -> Result<(), TrainError> {
        let text = config::write(config);
        Ok(write_atomically(&self.path.join(CONFIG), |w| w.write_all(text.as_bytes()))?)
    }

    fn warn(&mut self) {
        self.notes.extend(self.lock.warning.take());
    }
}

/// A directory for a run that goes on from a checkpoint: beside that checkpoint's run, or the usual one where it lies in
/// none.
fn first_free(checkpoint: &Checkpoint, config: &Config) -> Result<PathBuf, TrainError> {
    let Some(run) = checkpoint.run() else {
        let run = Path::new("runs").join(&config.run.name);
        return if run.symlink_metadata().is_err() { Ok(run) } else { numbered(&run) };
    };
    numbered(&run)
}

/// The first of RUN-2, RUN-3, ... that is not there.
fn numbered(run: &Path) -> Result<PathBuf, TrainError> {
    // A name such as `.` is looked up.
    let named = |run: &Path| run.file_name().map(|name| (run.to_owned(), name.to_owned()));
    let (run, name) = match named(run) {
        Some(named) => named,
        None => {
            let real = run.canonicalize().map_err(|e| Error::io(run, e))?;
            named(&real)
                .ok_or_else(|| Error::format(run, "the run has no name; name a directory with --out"))?
        }
    };
    let numbered = (2u32..).map(|number| {
        let mut name = name.clone();
        name.push(format!("-{number}"));
        run.with_file_name(name)
    });
    let mut free = numbered.filter(|path| path.symlink_metadata().is_err());
    free.next()
        .ok_or_else(|| Error::format(&run, "no name is free beside the run; name one with --out").into())
}

/// An empty directory under the name of one that is being made, locked. What a crash left there is removed.
fn make_aside(aside: &Path) -> Result<RunLock, TrainError> {
    if aside.symlink_metadata().is_ok() {
        if !was_held(aside) {
            let message = "the name is needed for a directory that is being made; rename what is there";
            return Err(Error::format(aside, message).into());
        }
        let _held = RunLock::take(aside)?;
        std::fs::remove_dir_all(aside).map_err(|e| Error::io(aside, e))?;
    }
    std::fs::create_dir(aside).map_err(|e| Error::io(aside, e))?;
    RunLock::take(aside)
}

/// Checks that a new run would write over nothing in `folder`. What an attempt left that failed before its first step
/// (its configuration, no metrics) may be written over.
fn check_unused(folder: &Path) -> Result<(), TrainError> {
    let what = if has_checkpoints(folder)? {
        "checkpoints of a run"
    } else if folder.join(CONFIG).exists() && !metrics::exist(folder) && !was_held(folder) {
        "a config.toml that no run wrote"
    } else {
        return Ok(());
    };
    let message = format!(
        "the directory already holds {what}; go on with a run by --resume, or write elsewhere with --out"
    );
    Err(Error::format(folder, message).into())
}
