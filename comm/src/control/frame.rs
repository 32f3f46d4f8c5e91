//! Frames: a head in JSON and a tail of plain bytes, each with its length before it. Lengths are checked before anything
//! is allocated, and memory grows only as bytes arrive.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::Instant;

/// The bytes of a frame.
pub(super) fn encode(head: &impl Serialize, tail: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    let mut bytes = Vec::with_capacity(16 + head.len() + tail.len());
    bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(tail.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(tail);
    Ok(bytes)
}

/// The next frame, with a head and a tail of at most so many bytes.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for what is not a frame; [`ErrorKind::UnexpectedEof`] at the end of the connection.
pub(super) fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    longest_head: usize,
    longest_tail: usize,
) -> io::Result<(T, Vec<u8>)> {
    let mut lengths = [0; 16];
    from.read_exact(&mut lengths)?;
    let (head, tail) = lengths.split_at(8);
    let length = |bytes: &[u8], most: usize| {
        let length = bytes.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte));
        usize::try_from(length).ok().filter(|&length| length <= most).ok_or_else(|| {
            invalid(format!("a message of {length} bytes came where at most {most} are possible"))
        })
    };
    let (head, tail) = (length(head, longest_head)?, length(tail, longest_tail)?);
    let head = serde_json::from_slice(&bytes(from, head)?)?;
    Ok((head, bytes(from, tail)?))
}

fn bytes(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(1 << 16));
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A connection that is read until a moment, whatever the peer does.
pub(super) struct Until<'a> {
    pub stream: &'a TcpStream,
    pub end: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_back(head in ".{0,40}", tail in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let sent = encode(&head, &tail).unwrap();
            let (got, rest): (String, _) = read(&mut &sent[..], 200, 200).unwrap();
            prop_assert_eq!((got, &rest), (head, &tail));
            let cut = cut.min(sent.len() - 1);
            let error = read::<String>(&mut &sent[..cut], 200, 200).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            if !tail.is_empty() {
                let error = read::<String>(&mut &sent[..], 200, tail.len() - 1).unwrap_err();
                prop_assert_eq!(error.kind(), ErrorKind::InvalidData);
            }
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(read::<String>(&mut &bytes[..], 100, 100).is_err());
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_read() {
        let lengths = [u64::MAX.to_le_bytes(), 0u64.to_le_bytes()].concat();
        let error = read::<String>(&mut &lengths[..], 100, 0).unwrap_err();
        assert!(error.to_string().contains("18446744073709551615 bytes"), "{error}");
    }
}
