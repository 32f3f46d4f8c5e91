//! The footer of a Parquet file, looked at before its reader trusts it, which allocates what counts in it ask for.
//!
//! It is a structure in Thrift's compact protocol
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>); its fields are those of
//! `FileMetaData` in <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

use bigmac_runtime::open::zeros;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What a file ends with: the length of the footer, then a mark.
const TAIL: u64 = 8;
const MARK: &[u8] = b"PAR1";
/// Structures within structures; Parquet's own are fewer than ten deep.
const DEEPEST: usize = 64;
/// `FileMetaData.schema`, a list of `SchemaElement`.
const SCHEMA: i64 = 2;
/// `SchemaElement.num_children`.
const CHILDREN: i64 = 5;

const BYTE: u8 = 3;
const I32: u8 = 5;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Checks that no count in the footer of a file of `len` bytes is larger than what it counts could be. Whatever else is
/// wrong with the footer is for its reader to say.
///
/// # Errors
/// In words, for a count that does not fit; those of reading.
pub(super) fn check(file: &File, len: u64) -> Result<(), String> {
    let mut tail = [0; TAIL as usize];
    let Some(start) = len.checked_sub(TAIL) else { return Ok(()) };
    file.read_exact_at(&mut tail, start).map_err(|e| e.to_string())?;
    let (size, mark) = tail.split_at(4);
    let size = size.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
    let Some(start) = start.checked_sub(size).filter(|_| mark == MARK) else { return Ok(()) };
    let mut bytes = zeros(size as usize).map_err(|e| e.to_string())?;
    file.read_exact_at(&mut bytes, start).map_err(|e| e.to_string())?;
    Walk { rest: &bytes }.metadata()
}

/// What is left of a footer.
struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn metadata(&mut self) -> Result<(), String> {
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            if (id, kind) == (SCHEMA, LIST) { self.schema()? } else { self.skip(kind, 0)? }
        }
        Ok(())
    }

    fn schema(&mut self) -> Result<(), String> {
        let (count, kind) = self.list()?;
        for _ in 0..count {
            if kind != STRUCT {
                return Err("the schema in its footer is not a list of structures".into());
            }
            let mut id = 0;
            while let Some(kind) = self.field(&mut id)? {
                if (id, kind) != (CHILDREN, I32) {
                    self.skip(kind, 0)?;
                    continue;
                }
                let children = self.integer()?;
                if !(0..=count as i64).contains(&children) {
                    return Err(format!(
                        "its footer says that a group has {children} columns, in a schema of {count} entries"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The next field's type, none at the end of a structure; `id` is that of the field before, and becomes its own.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>, String> {
        let head = self.byte()?;
        let kind = head & 0xf;
        if kind == 0 {
            return Ok(None);
        }
        *id = match head >> 4 {
            0 => self.integer()?,
            delta => id.saturating_add(i64::from(delta)),
        };
        Ok(Some(kind))
    }

    /// A list's or set's length and the type of its elements, each of which takes a byte at least.
    fn list(&mut self) -> Result<(usize, u8), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.unsigned()?,
            short => u64::from(short),
        };
        match usize::try_from(count).ok().filter(|count| *count <= self.rest.len()) {
            Some(count) => Ok((count, head & 0xf)),
            None => {
                Err(format!("its footer says that a list has {count} elements, in {} bytes", self.rest.len()))
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("its footer nests structures more than {DEEPEST} deep"));
        }
        match kind {
            // Flags are in their type.
            1 | 2 => Ok(()),
            BYTE => self.pass(1),
            4..=6 => self.unsigned().map(drop),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => {
                let length = self.unsigned()?;
                self.pass(length)
            }
            LIST | SET => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            MAP => {
                let count = self.unsigned()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                // What is not there ends it.
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0xf, depth)
                })
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(format!("its footer has a value of the unknown type {kind}")),
        }
    }

    /// An element of a list or a map, where flags take a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        match kind {
            0..=2 => self.pass(1),
            kind => self.skip(kind, depth + 1),
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or("its footer is cut short")?;
        self.rest = rest;
        Ok(*first)
    }

    fn pass(&mut self, count: u64) -> Result<(), String> {
        let rest = usize::try_from(count).ok().and_then(|count| self.rest.get(count..));
        self.rest = rest.ok_or("its footer is cut short")?;
        Ok(())
    }

    /// Seven bits to a byte, the lowest first.
    fn unsigned(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("its footer has a number of more than 64 bits".into())
    }

    /// The same with the sign in the lowest bit.
    fn integer(&mut self) -> Result<i64, String> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file with this footer, and what is said of it.
    fn said(footer: &[u8]) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        for part in [MARK, footer, &(footer.len() as u32).to_le_bytes(), MARK] {
            file.write_all(part).unwrap();
        }
        check(&file, file.metadata().unwrap().len())
    }

    #[test]
    fn counts_fit_what_they_count() {
        // Version 1; a schema of a root with so many children, and a column named x.
        let footer = |children: &[u8]| {
            let root = [&[0x48, 1, b'r', 0x15][..], children, &[0]].concat();
            [&[0x15, 2, 0x19, 0x2c][..], &root, &[0x48, 1, b'x', 0, 0]].concat()
        };
        said(&footer(&[2])).unwrap();
        let error = said(&footer(&[0x80, 0x80, 0x80, 0x80, 0x8])).unwrap_err();
        assert_eq!(error, "its footer says that a group has 1073741824 columns, in a schema of 2 entries");
        assert!(said(&footer(&[1])).unwrap_err().contains("-1 columns"));
        // A list that says it is longer than all there is.
        let error = said(&[0x19, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xf]).unwrap_err();
        assert!(error.contains("a list has 4294967295 elements, in 0 bytes"), "{error}");
        assert!(said(&[0x1c; 200]).unwrap_err().contains("64 deep"));
        assert!(said(&footer(&[2])[..6]).unwrap_err().contains("cut short"));
        // Other kinds of files are for the reader.
        let file = tempfile::tempfile().unwrap();
        check(&file, 0).unwrap();
    }
}
