//! A file read at places that mostly lie close together.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Bytes that are read at a time: several headers of a shard of small files, and little beside one of large files.
const BYTES: usize = 8192;

/// The longest stretch of zeros that is read through, in bytes. Archives end with some; a file of nothing else has holes
/// of any size, and would be read for hours.
const MOST_ZEROS: u64 = 16 << 20;

/// A file and the last stretch of it that was read. Going to another place costs nothing until something is read there.
pub(super) struct Window {
    file: File,
    len: u64,
    at: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Bytes of zeros that were read one after another.
    zeros: u64,
}

impl Window {
    /// The file, from its beginning.
    ///
    /// # Errors
    /// When its length cannot be told.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Window { file, len, at: 0, start: 0, bytes: Vec::new(), zeros: 0 })
    }

    /// The file's length when it was opened, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the window from the current place on.
    fn ahead(&self) -> &[u8] {
        let skip = self.at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }
}

impl Read for Window {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.len() >= BYTES {
            let read = self.file.read_at(into, self.at)?;
            self.at += read as u64;
            return Ok(read);
        }
        if self.ahead().is_empty() {
            self.bytes.resize(BYTES, 0);
            // Should reading fail, nothing is kept of what lay there before.
            let read = self.file.read_at(&mut self.bytes, self.at).inspect_err(|_| self.bytes.clear());
            self.bytes.truncate(read?);
            self.start = self.at;
            let blank = self.bytes.iter().all(|byte| *byte == 0);
            self.zeros = if blank { self.zeros + self.bytes.len() as u64 } else { 0 };
            if self.zeros > MOST_ZEROS {
                return Err(io::Error::other("only zeros, where files are expected"));
            }
        }
        let ahead = self.ahead();
        let count = ahead.len().min(into.len());
        into[..count].copy_from_slice(&ahead[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn zeros_without_end_are_not_read_to_their_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(200 << 30).unwrap();
        let mut window = Window::new(file).unwrap();
        let mut block = [1; 512];
        let read = (0..MOST_ZEROS / 512).try_for_each(|_| window.read_exact(&mut block));
        assert!(read.is_ok() && block == [0; 512]);
        assert!(window.read_exact(&mut block).unwrap_err().to_string().contains("only zeros"));
    }

    #[test]
    fn every_place_reads_as_in_the_file() {
        let bytes: Vec<u8> = (0..30_000u32).map(|i| (i / 7) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut window = Window::new(file).unwrap();
        assert_eq!(window.len(), 30_000);
        let mut place = 0usize;
        for i in 0..2000usize {
            place = (place * 31 + i * 977) % 30_000;
            let len = [1, 512, 700, 8191, 8192, 20_000][i % 6].min(30_000 - place);
            let mut read = vec![0; len];
            window.seek(SeekFrom::Start(place as u64)).unwrap();
            window.read_exact(&mut read).unwrap();
            assert!(read == bytes[place..place + len], "{len} bytes from {place}");
        }
        for beyond in [30_000, u64::MAX] {
            window.seek(SeekFrom::Start(beyond)).unwrap();
            assert_eq!(window.read(&mut [0; 9]).ok().unwrap_or(0), 0);
        }
        assert!(window.seek(SeekFrom::Start(5)).and_then(|_| window.seek(SeekFrom::Current(-6))).is_err());
    }
}
