//! A run's directory: begun, gone on with, or branched off from another run's checkpoint. Whatever is done, nothing that
//! a run has written before is changed or removed.

use super::TrainError;
use super::checkpoint::{Checkpoint, adopt, has_checkpoints};
use super::lock::{RunLock, was_held};
use super::metrics::{self, MetricsFile};
use crate::config::{self, Config};
use bigmac_runtime::Error;
use bigmac_runtime::fs::{sync_directory, write_atomically};
use std::io::ErrorKind;
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
    /// [`Error::Format`] when `to` is there and not empty; [`TrainError::Save`] and those of the file system.
    pub fn branch(
        checkpoint: &Checkpoint,
        to: Option<&Path>,
        config: &Config,
    ) -> Result<RunFolder, TrainError> {
        let target = match to {
            Some(to) => target(to)?,
            None => first_free(checkpoint, config)?,
        };
        if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        }
        let mut folder = make_aside(&target)?;
        folder.warn();
        let made = folder
            .fill(checkpoint, config)
            .and_then(|()| folder.put(target, to.is_none(), checkpoint, config));
        if made.is_err() {
            // The error to report is the first; what stays is removed by the next branch.
            let _ = std::fs::remove_dir_all(&folder.path);
        }
        made.map(|()| folder)
    }

    /// Makes a run of an empty directory, which begins with `checkpoint`.
    fn fill(&self, checkpoint: &Checkpoint, config: &Config) -> Result<(), TrainError> {
        adopt(checkpoint, &self.path, config)?;
        MetricsFile::copy(checkpoint.run().as_deref(), &self.path, checkpoint.state().step)?;
        self.write_config(config)
    }

    /// Renames the directory to `target`; to the next free one where another run came first and `any` will do.
    fn put(
        &mut self,
        mut target: PathBuf,
        any: bool,
        checkpoint: &Checkpoint,
        config: &Config,
    ) -> Result<(), TrainError> {
        loop {
            match std::fs::rename(&self.path, &target) {
                Err(e) if any && target.exists() && is_taken(&e) => target = first_free(checkpoint, config)?,
                renamed => break renamed.map_err(|e| Error::io(&target, e))?,
            }
        }
        self.lock.moved_to(&target);
        self.path = target;
        Ok(sync_directory(&self.path).map_err(|e| Error::io(&self.path, e))?)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the resolved configuration there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_config(&self, config: &Config) -> Result<(), TrainError> {
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

fn is_taken(error: &std::io::Error) -> bool {
    [ErrorKind::AlreadyExists, ErrorKind::DirectoryNotEmpty].contains(&error.kind())
}

/// Where a directory goes that is to be called `to`: nothing may be there, or an empty directory.
fn target(to: &Path) -> Result<PathBuf, TrainError> {
    if to.symlink_metadata().is_err() {
        return Ok(to.to_owned());
    }
    check_unused(to)?;
    let wrong = |message: &str| Error::format(to, message);
    let mut entries = std::fs::read_dir(to).map_err(|e| Error::io(to, e))?;
    if entries.next().is_some() {
        return Err(wrong("the directory is not empty; name another with --out").into());
    }
    // What a link leads to.
    let real = to.canonicalize().map_err(|e| Error::io(to, e))?;
    if std::env::current_dir().is_ok_and(|here| here.starts_with(&real)) {
        let message = "a run goes on in a directory that is made for it, and this is the current one; name another with --out";
        return Err(wrong(message).into());
    }
    Ok(real)
}

/// Ends the names of directories that are being made. No run is called so: the rest of the name is that of a process.
const MAKING: &str = ".making";

/// An empty directory beside `target`, under a name that no other process uses, locked. Those that crashes left are
/// removed.
fn make_aside(target: &Path) -> Result<RunFolder, TrainError> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!(".{name}.");
    for entry in std::fs::read_dir(beside).map_err(|e| Error::io(beside, e))?.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let process = found.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(MAKING));
        let is_left = process.is_some_and(|process| process.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        // A directory that cannot be removed does no harm: names are never used twice.
        if is_left && RunLock::take(&entry.path()).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    for attempt in 0..u32::MAX {
        let path = target.with_file_name(format!("{prefix}{}-{attempt}{MAKING}", std::process::id()));
        match std::fs::create_dir(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(|e| Error::io(&path, e))?;
                return Ok(RunFolder { lock: RunLock::take(&path)?, path, notes: Vec::new() });
            }
        }
    }
    Err(Error::format(target, "no name is free for the directory that is being made").into())
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
