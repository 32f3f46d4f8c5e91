//! Atomic writes of files: written aside, synced, renamed.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `path` through `fill`: into a file beside it, synced, then renamed over it, so that `path` always holds
/// either the old content or the whole new one.
///
/// # Errors
/// [`Error::Io`] of the step that failed (no space left, no permission); the file aside is removed again.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let aside = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::new(File::create(&aside)?);
        fill(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&aside, path)?;
        sync_directory(path)
    })();
    written.map_err(|source| {
        // The error to report is the first one; a file aside that cannot be removed is overwritten next time.
        let _ = std::fs::remove_file(&aside);
        Error::io(path, source)
    })
}

/// Makes a rename in the directory of `path` last: on Unix a directory is synced like a file.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
