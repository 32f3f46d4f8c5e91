//! Text files as editors write them, and atomic writes: written aside, synced, renamed.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file, without the byte order mark that some editors write before it.
///
/// # Errors
/// Those of reading; [`std::io::ErrorKind::InvalidData`] for what is not UTF-8, which says so where it is UTF-16.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let wrong = |message: &str| std::io::Error::new(ErrorKind::InvalidData, message);
    let mut bytes = crate::open::read_file(path)?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(wrong("the text is UTF-16; save the file as UTF-8"));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|_| wrong("the text is not UTF-8; save the file as UTF-8"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_before_the_text_is_skipped_and_other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbfa").unwrap(), "a");
        // Only the first one is a mark.
        assert_eq!(read("\u{feff}\u{feff}a\u{feff}".as_bytes()).unwrap(), "\u{feff}a\u{feff}");
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"\xef\xbb").unwrap_err(), "the text is not UTF-8; save the file as UTF-8");
        for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a"] {
            assert_eq!(read(utf16).unwrap_err(), "the text is UTF-16; save the file as UTF-8");
        }
        assert_eq!(read_text(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
