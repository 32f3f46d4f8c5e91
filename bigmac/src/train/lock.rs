//! One run directory, one run: a lock that the system releases when its process ends, however it ends.

use super::TrainError;
use bigmac_runtime::Error;
use bigmac_runtime::fs::{check_output, read_text};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file in a run's directory, there while it trains.
const FILE: &str = "run.lock";
/// Attempts to lock a file that others remove at the same time.
const ATTEMPTS: usize = 100;

/// Whether a directory is, or once was, held by a run.
pub(super) fn was_held(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// A run's directory, held by this process.
#[derive(Debug)]
pub(super) struct RunLock {
    path: PathBuf,
    /// The lock lives as long as this is open.
    _file: File,
    /// A sentence on why nothing keeps other processes out, where the file system has no locks.
    pub warning: Option<String>,
}

impl RunLock {
    /// Locks a directory.
    ///
    /// # Errors
    /// [`TrainError::InUse`] where another process has; [`TrainError::Runtime`] where the file cannot be written.
    pub fn take(folder: &Path) -> Result<RunLock, TrainError> {
        let path = folder.join(FILE);
        // Whatever else has that name: to open a pipe would wait for whoever reads it.
        check_output(&path)?;
        let io = |e: std::io::Error| Error::io(&path, e);
        for _ in 0..ATTEMPTS {
            let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
            let mut file = options.open(&path).map_err(io)?;
            let warning = match file.try_lock() {
                Ok(()) => None,
                Err(TryLockError::WouldBlock) => {
                    // Its holder may be about to write who it is, or to remove it.
                    let by = read_text(&path).unwrap_or_default();
                    let by = if by.is_empty() { "another process".to_owned() } else { by };
                    return Err(TrainError::InUse { run: folder.to_owned(), by });
                }
                Err(TryLockError::Error(e)) => Some(format!(
                    "{} cannot be locked ({e}): nothing keeps a second run from writing to {}",
                    path.display(),
                    folder.display()
                )),
            };
            if is_same(&file, &path) {
                file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes())).map_err(io)?;
                return Ok(RunLock { path, _file: file, warning });
            }
        }
        Err(TrainError::InUse { run: folder.to_owned(), by: "other processes".to_owned() })
    }

    /// The directory was renamed.
    pub fn moved_to(&mut self, folder: &Path) {
        self.path = folder.join(FILE);
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // A file that stays does no harm: the lock counts, not the file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether an open file is still the one of that name: whoever held the lock before removed it in between.
fn is_same(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |about: &std::fs::Metadata| (about.dev(), about.ino());
        matches!((file.metadata(), path.metadata()), (Ok(a), Ok(b)) if id(&a) == id(&b))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Who holds a lock.
fn this_process() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    format!("process {} on {} since {now}", std::process::id(), host())
}

/// The name of this machine.
fn host() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is valid for its length, of which one byte is left for the final zero.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or_default();
    if failed || end == 0 {
        "this machine".to_owned()
    } else {
        String::from_utf8_lossy(&name[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once_and_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let held = RunLock::take(folder.path()).unwrap();
        assert!(held.warning.is_none() && was_held(folder.path()));
        let error = RunLock::take(folder.path()).unwrap_err().to_string();
        let this = format!("process {}", std::process::id());
        assert!(error.contains(&this) && error.contains(&folder.path().display().to_string()), "{error}");
        drop(held);
        assert!(!was_held(folder.path()));
        // What a crash leaves is a file without a lock.
        std::fs::write(folder.path().join(FILE), "process 1 on a machine that is gone, with a long name")
            .unwrap();
        let held = RunLock::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(text.starts_with(&this) && !text.contains("gone"), "{text}");
        drop(held);
    }
}
