//! Opening files to be read: files alone, never what blocks or has no end.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Opens a file to be read.
///
/// # Errors
/// Those of opening; [`ErrorKind::InvalidInput`] for a folder, a pipe, a device or a socket: opening a pipe that nobody
/// writes to would wait forever, and a device may have no end.
pub fn open_file(path: &Path) -> Result<File> {
    // Looked at before it is opened, as opening alone may wait, or move a tape.
    let kind = std::fs::metadata(path)?.file_type();
    let wrong =
        |what: &str| Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}, expected a file")));
    if kind.is_file() {
        return File::open(path);
    }
    wrong(if kind.is_dir() { "a folder" } else { "a pipe, a device or a socket" })
}

/// The bytes of a file. What memory does not hold is an error.
///
/// # Errors
/// As [`open_file`]; those of reading.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut file = open_file(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

/// So many bytes to read into.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`].
pub fn zeros(length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_nothing_else_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(read_file(&path).unwrap(), b"bytes");
        assert_eq!(read_file(folder.path()).unwrap_err().to_string(), "it is a folder, expected a file");
        assert_eq!(open_file(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    #[cfg(unix)]
    fn neither_pipes_nor_devices_are_waited_for() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for path in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read_file(path).unwrap_err();
            assert_eq!(error.to_string(), "it is a pipe, a device or a socket, expected a file", "{path:?}");
        }
        // A link to a file is as good as the file.
        std::fs::write(folder.path().join("file"), b"x").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        assert_eq!(read_file(&folder.path().join("link")).unwrap(), b"x");
    }
}
