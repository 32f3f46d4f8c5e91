//! Frames on their way in. Receives for beginnings of frames, from anybody, are always posted; a payload that does not
//! fit there is received straight into its tensor. Frames of a rank are filed in their order, whatever arrives first.

use super::request::{Fault, HEAD, Line, PAYLOAD, Request};
use super::send::{INLINE, pieces};
use crate::process::{Arrivals, Landing, Malformed, header_length};
use std::collections::VecDeque;
use std::ops::Range;

/// Receives for beginnings that are posted at once.
const POSTED: usize = 16;

/// Why a frame cannot be taken.
pub enum Trouble {
    Fault(Fault),
    /// A rank sent what no rank sends.
    Malformed(usize, Malformed),
    /// There is no memory for bytes that have to be taken.
    NoMemory(usize),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

/// A posted receive of a beginning.
struct Slot {
    bytes: Box<[u8; INLINE]>,
    request: Request,
}

/// A frame whose payload is on its way.
struct Incoming {
    landing: Landing,
    /// Holds a payload that there was no room for.
    #[expect(dead_code, reason = "MPI writes to it")]
    waste: Vec<u8>,
    requests: VecDeque<Request>,
}

/// Everything on its way in.
pub struct Receiving {
    /// In the order they were posted, in which MPI fills them.
    slots: VecDeque<Slot>,
    /// Of each rank, in the order of sending.
    lanes: Vec<VecDeque<Incoming>>,
}

impl Receiving {
    /// Posts the receives.
    pub fn start(line: &Line<'_>, size: usize) -> Result<Self, Fault> {
        let mut receiving =
            Receiving { slots: VecDeque::new(), lanes: (0..size).map(|_| VecDeque::new()).collect() };
        for _ in 0..POSTED {
            receiving.post(line, Box::new([0; INLINE]))?;
        }
        Ok(receiving)
    }

    fn post(&mut self, line: &Line<'_>, mut bytes: Box<[u8; INLINE]>) -> Result<(), Fault> {
        // SAFETY: the box stays in its slot until the request is done; on a fault everything is leaked.
        let request = unsafe { line.receive(&raw mut bytes[..], None, HEAD) }?;
        self.slots.push_back(Slot { bytes, request });
        Ok(())
    }

    /// Takes what has arrived; whether anything had. Ranks whose last frame was filed are recorded in the mailbox.
    pub fn advance(&mut self, line: &Line<'_>, arrivals: &Arrivals) -> Result<bool, Trouble> {
        let mut moved = false;
        while let Some(slot) = self.slots.front_mut() {
            let Some(status) = line.test(&mut slot.request)? else { break };
            moved = true;
            let Some(slot) = self.slots.pop_front() else { break };
            // A source that MPI reports is a rank.
            self.open(line, arrivals, status.source as usize, &slot.bytes[..])?;
            self.post(line, slot.bytes)?;
        }
        for from in 0..self.lanes.len() {
            moved |= self.land(line, arrivals, from)?;
        }
        Ok(moved)
    }

    /// Reads the beginning of a frame, and receives the rest of its payload or takes it from there.
    fn open(
        &mut self,
        line: &Line<'_>,
        arrivals: &Arrivals,
        from: usize,
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let malformed = |malformed| Trouble::Malformed(from, malformed);
        let (start, rest) = bytes.split_first_chunk().ok_or(malformed(Malformed("it is empty")))?;
        let (header, rest) = rest.split_at(header_length(*start).map_err(malformed)?);
        let mut landing = arrivals.open(header).map_err(malformed)?;
        let length = landing.bytes();
        let lane = self.lanes.get_mut(from).ok_or(malformed(Malformed("it is from no rank")))?;
        let (mut waste, requests) = (Vec::new(), VecDeque::new());
        if 4 + header.len() + length <= INLINE {
            if let Some(buffer) = landing.buffer() {
                buffer.copy_from_slice(&rest[..buffer.len()]);
            }
            lane.push_back(Incoming { landing, waste, requests });
            return Ok(());
        }
        let buffer: *mut [u8] = match landing.buffer() {
            Some(buffer) => buffer,
            None => {
                waste.try_reserve_exact(length).map_err(|_| Trouble::NoMemory(length))?;
                waste.resize(length, 0);
                &mut waste[..]
            }
        };
        // Kept before MPI is asked: what it was given stays, also when a later piece fails.
        lane.push_back(Incoming { landing, waste, requests });
        let Some(incoming) = lane.back_mut() else { return Ok(()) };
        for piece in pieces(length) {
            // SAFETY: the buffer lies on the heap, in a tensor that no one else has or in a vector, and stays in its
            // lane until its requests are done; on a fault the lane is leaked. Pieces do not overlap.
            let request = unsafe { line.receive(part(buffer, piece), Some(from), PAYLOAD) }?;
            incoming.requests.push_back(request);
        }
        Ok(())
    }

    /// Files the frames of a rank that are complete, up to the first that is not.
    fn land(&mut self, line: &Line<'_>, arrivals: &Arrivals, from: usize) -> Result<bool, Trouble> {
        let mut moved = false;
        while let Some(oldest) = self.lanes[from].front_mut() {
            while let Some(request) = oldest.requests.front_mut() {
                if line.test(request)?.is_none() {
                    return Ok(moved);
                }
                oldest.requests.pop_front();
            }
            let Some(Incoming { landing, .. }) = self.lanes[from].pop_front() else { break };
            arrivals.land(from, landing).map_err(|malformed| Trouble::Malformed(from, malformed))?;
            moved = true;
        }
        Ok(moved)
    }

    /// Takes back the posted receives, after the last frame of everybody; true when all of them are.
    pub fn stop(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        self.slots.iter_mut().try_for_each(|slot| line.cancel(&mut slot.request))
    }

    /// True when the receives that were taken back are done.
    pub fn stopped(&mut self, line: &Line<'_>) -> Result<bool, Fault> {
        while let Some(slot) = self.slots.front_mut() {
            if line.test(&mut slot.request)?.is_none() {
                return Ok(false);
            }
            self.slots.pop_front();
        }
        Ok(true)
    }
}

/// A part of a buffer, without a reference to all of it.
fn part(buffer: *mut [u8], range: Range<usize>) -> *mut [u8] {
    // The range is within the buffer's length, so the address is within or at its end.
    std::ptr::slice_from_raw_parts_mut(buffer.cast::<u8>().wrapping_add(range.start), range.len())
}
