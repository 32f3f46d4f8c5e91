//! A few bytes of rank 0 on all ranks, before there are frames: enough for ranks to find each other elsewhere.

use super::request::{Fault, Line, Request};
use std::ffi::c_int;
use std::mem::forget;
use std::time::{Duration, Instant};

/// The most bytes.
pub const MOST: usize = 1022;
/// Beside those of frames.
const TAG: c_int = 3;
/// Between two looks.
const SLEEP: Duration = Duration::from_micros(200);

/// A letter of fixed size: the length of what is in it, in two bytes, and that.
type Letter = Box<[u8; MOST + 2]>;

/// Rank 0's `mine` (at most [`MOST`] bytes) on each of `size` ranks; `None` when it has not come by `until`.
pub fn share(
    line: &Line<'_>,
    rank: usize,
    size: usize,
    mine: &[u8],
    until: Instant,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut letter: Letter = Box::new([0; MOST + 2]);
    let mine = &mine[..mine.len().min(MOST)];
    letter[..2].copy_from_slice(&(mine.len() as u16).to_le_bytes());
    letter[2..2 + mine.len()].copy_from_slice(mine);
    let outcome = exchange(line, rank, size, &mut letter, until);
    if !matches!(outcome, Ok(true)) {
        // MPI may still read it, or write to it.
        forget(letter);
        return outcome.map(|_| None);
    }
    let length = usize::from(u16::from_le_bytes([letter[0], letter[1]])).min(MOST);
    Ok(Some(letter[2..2 + length].to_vec()))
}

/// Sends the letter from rank 0 to the others; whether that was done in time.
fn exchange(
    line: &Line<'_>,
    rank: usize,
    size: usize,
    letter: &mut Letter,
    until: Instant,
) -> Result<bool, Fault> {
    let bytes: *mut [u8] = &mut letter[..];
    let mut requests: Vec<Request> = if rank == 0 {
        // SAFETY: the caller keeps the letter until all of this is done, or forever.
        (1..size).map(|to| unsafe { line.send(bytes, to, TAG) }).collect::<Result<_, _>>()?
    } else {
        // SAFETY: as above; this is the only request that uses it.
        vec![unsafe { line.receive(bytes, Some(0), TAG) }?]
    };
    while !requests.is_empty() {
        let mut open = Vec::new();
        for mut request in requests {
            if line.test(&mut request)?.is_none() {
                open.push(request);
            }
        }
        requests = open;
        if !requests.is_empty() {
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(SLEEP);
        }
    }
    Ok(true)
}
