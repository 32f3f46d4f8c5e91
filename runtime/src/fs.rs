//! Text files as editors write them, and atomic writes: written aside, synced, renamed.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

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
/// either the old content or the whole new one. A symbolic link stays, and what it leads to is written.
///
/// # Errors
/// [`Error::Format`] for a path that no file can be written to, see [`check_output`]; [`Error::Io`] of the step that
/// failed (no space left, no permission), when the file aside is removed again.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let target = check_output(path)?;
    let (mut aside, file) = create_aside(&target).map_err(|source| Error::io(path, source))?;
    let written = (|| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&aside.path, &target)?;
        aside.is_done = true;
        sync_directory(&target)
    })();
    written.map_err(|source| Error::io(path, source))
}

/// Checks that a file can be written as `path`: a new one, or in place of a regular one, never of a folder, a device, a
/// pipe or a socket. Returns where it goes, which for a symbolic link is what that leads to.
///
/// # Errors
/// [`Error::Format`], saying what is there; [`Error::Io`] where that cannot be seen.
pub fn check_output(path: &Path) -> Result<PathBuf> {
    let about = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return match path.file_name() {
                Some(_) => Ok(path.to_owned()),
                None => Err(Error::format(path, "a file's name was expected; add one")),
            };
        }
        about => about.map_err(|e| Error::io(path, e))?,
    };
    let (target, about) = if about.is_symlink() {
        let broken = |e: std::io::Error| {
            let message =
                format!("a symbolic link that leads to no file ({e}); remove it, or name another file");
            Error::format(path, message)
        };
        let target = path.canonicalize().map_err(broken)?;
        let about = std::fs::metadata(&target).map_err(|e| Error::io(&target, e))?;
        (target, about)
    } else {
        (path.to_owned(), about)
    };
    if about.is_file() {
        return Ok(target);
    }
    let what = if about.is_dir() { "a folder" } else { "a device, a pipe or a socket" };
    Err(Error::format(path, format!("this is {what}, which no file is written over; name another file")))
}

/// A file that is written beside its target; removed unless it was renamed.
struct Aside {
    path: PathBuf,
    is_done: bool,
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_done {
            // The error to report is that of writing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A new file beside `target`, with the permissions of any new file. Its name is no other's: neither what a user has
/// nor what another process writes at the same time is touched.
fn create_aside(target: &Path) -> std::io::Result<(Aside, File)> {
    let name = target.file_name().unwrap_or_default();
    for attempt in 0..u32::MAX {
        let mut aside = OsString::from(".");
        aside.push(name);
        aside.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let path = target.with_file_name(aside);
        match File::create_new(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            created => return Ok((Aside { path, is_done: false }, created?)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes a rename in the directory of `path` last: on Unix a directory is synced like a file.
///
/// # Errors
/// Those of opening and syncing the directory.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
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

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all_with_the_permissions_of_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        std::fs::write(folder.path().join("out.tmp"), "mine").unwrap();
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(Error::Io { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(), ["out", "out.tmp"], "nothing is left aside, and what was there stays");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&folder.path().join("out.tmp")));
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_not_a_file_is_not_written_over() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write =
            |name: &str| write_atomically(&path(name), |w| w.write_all(b"new")).map_err(|e| e.to_string());
        std::fs::write(path("file"), "old").unwrap();
        symlink("file", path("link")).unwrap();
        write("link").unwrap();
        assert!(std::fs::symlink_metadata(path("link")).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "new");

        symlink("nowhere", path("dangling")).unwrap();
        symlink("round", path("round")).unwrap();
        std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        for (name, wanted) in [
            ("dangling", "leads to no file"),
            ("round", "leads to no file"),
            ("socket", "a device, a pipe or a socket"),
            ("folder", "a folder"),
        ] {
            let error = write(name).unwrap_err();
            assert!(error.contains(wanted) && error.contains(name), "{error}");
        }
        assert!(!path("nowhere").exists());
        assert!(std::fs::symlink_metadata(path("socket")).unwrap().file_type().is_socket());
        let device = write_atomically(Path::new("/dev/null"), |_| Ok(())).unwrap_err().to_string();
        assert!(device.contains("a device"), "{device}");
        assert!(write_atomically(Path::new(""), |_| Ok(())).is_err());
    }
}
