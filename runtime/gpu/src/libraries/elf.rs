//! How long an ELF file must be. The dynamic loader maps what the header names, and a process that touches mapped pages
//! after the end of a file that was cut off is killed by SIGBUS: such a file must be refused before it is opened.

use std::io::{Read, Result, Seek, SeekFrom};

/// The length that a 64-bit little-endian ELF file must have by its own header: the end of its segments and of both
/// tables. `None` for any other file.
pub(crate) fn required_length(file: &mut (impl Read + Seek)) -> Result<Option<u64>> {
    const HEADER: u64 = 64;
    let header = read(file, 0, HEADER)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    if (header.len() as u64) < HEADER {
        return Ok(Some(HEADER));
    }
    let table = |offset, size, count| {
        (number(&header, offset, 8), number(&header, size, 2), number(&header, count, 2))
    };
    let (segments, size, count) = table(32, 54, 56);
    let segments_end = segments.saturating_add(size * count);
    let (sections, section_size, section_count) = table(40, 58, 60);
    let mut end = HEADER.max(segments_end).max(sections.saturating_add(section_size * section_count));
    // Entries of another size would be of a format that is not known here.
    if size == 56 {
        for segment in read(file, segments, size * count)?.chunks_exact(56) {
            end = end.max(number(segment, 8, 8).saturating_add(number(segment, 32, 8)));
        }
    }
    Ok(Some(end))
}

/// Up to `length` bytes from `start` on; fewer where the file ends.
fn read(file: &mut (impl Read + Seek), start: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The number of `size` bytes at `start`.
fn number(bytes: &[u8], start: usize, size: usize) -> u64 {
    bytes[start..start + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
