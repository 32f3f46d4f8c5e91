//! Frames on their way out. A frame up to [`INLINE`] bytes is one message, so that small ones cost one latency; of a
//! larger one the header goes first, and the payload follows straight from the tensor, in messages of at most
//! [`PIECE`] bytes. The receiver learns sizes from headers, so it probes for nothing.

use super::request::{Fault, HEAD, Line, PAYLOAD, PIECE, Request};
use crate::process::{Frame, MAX_HEADER};
use std::collections::VecDeque;

/// The most bytes of a frame that is sent in one message.
pub const INLINE: usize = 4 * MAX_HEADER;
/// Frames for one rank that MPI is given at once; the rest waits here.
const AT_ONCE: usize = 64;

/// A frame that MPI has.
struct Sending {
    /// What its first message holds, where that is not the header alone.
    whole: Option<Vec<u8>>,
    frame: Frame,
    /// Not done yet, in the order they were begun.
    requests: VecDeque<Request>,
}

/// What is on its way to one rank.
#[derive(Default)]
pub struct Lane {
    waiting: VecDeque<Frame>,
    sending: VecDeque<Sending>,
}

/// The pieces of a payload of that length, as ranges.
pub fn pieces(length: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..length).step_by(PIECE).map(move |start| start..length.min(start + PIECE))
}

impl Lane {
    /// Queues a frame.
    pub fn push(&mut self, frame: Frame) {
        self.waiting.push_back(frame);
    }

    /// True when everything was sent.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_empty()
    }

    /// Gives waiting frames to MPI and lets go of those that were sent, in their order; whether anything happened.
    pub fn advance(&mut self, line: &Line<'_>, to: usize) -> Result<bool, Fault> {
        let mut moved = false;
        while self.sending.len() < AT_ONCE {
            let Some(frame) = self.waiting.pop_front() else { break };
            self.begin(line, to, frame)?;
            moved = true;
        }
        // The oldest alone: those behind it are let go of after it anyway, and any test lets MPI move all of them on.
        while let Some(oldest) = self.sending.front_mut() {
            while let Some(request) = oldest.requests.front_mut() {
                if line.test(request)?.is_none() {
                    return Ok(moved);
                }
                oldest.requests.pop_front();
            }
            self.sending.pop_front();
            moved = true;
        }
        Ok(moved)
    }

    fn begin(&mut self, line: &Line<'_>, to: usize, frame: Frame) -> Result<(), Fault> {
        let length = frame.header.len() + frame.payload().len();
        let whole = (length <= INLINE && !frame.payload().is_empty())
            .then(|| [frame.header.as_slice(), frame.payload()].concat());
        // Kept before MPI is asked: what it was given stays, also when a later piece fails.
        self.sending.push_back(Sending { whole, frame, requests: VecDeque::new() });
        let Some(Sending { whole, frame, requests }) = self.sending.back_mut() else { return Ok(()) };
        let head = whole.as_deref().unwrap_or(&frame.header);
        // SAFETY: header, copy and tensor lie on the heap, and are dropped after their requests are done; on a fault
        // the lane is leaked.
        requests.push_back(unsafe { line.send(head, to, HEAD) }?);
        if whole.is_none() {
            for piece in pieces(frame.payload().len()) {
                // SAFETY: as above; a payload is not written to while a frame holds it.
                requests.push_back(unsafe { line.send(&raw const frame.payload()[piece], to, PAYLOAD) }?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_payload_once_and_in_order() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let mut end = 0;
            for piece in pieces(length) {
                assert!(piece.start == end && !piece.is_empty() && piece.len() <= PIECE);
                end = piece.end;
            }
            assert_eq!(end, length);
            assert_eq!(pieces(length).count(), length.div_ceil(PIECE));
        }
    }
}
