//! Copies between the host's memory and the device's, through pinned blocks: only from there does a copy run while the
//! caller goes on, and only there may the device write while the caller's memory could go away.

use crate::driver::{DriverResult, PendingDownload};
use crate::nvidia::context::{Event, Pinned, Stream};
use crate::nvidia::cuda::{Failure, Functions};
use crate::shared::lock;
use cudarc::driver::sys::CUevent_flags;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

/// Uploads up to this size, and downloads that are not waited for at once, go through blocks of this size.
const SMALL: usize = 64 << 10;
/// How many small uploads can be under way: more than ranks queue ahead in practice, so that none of them waits.
const SMALL_BLOCKS: usize = 512;
/// Anything larger is cut in blocks of this size: large enough for the bus, small enough to be filled while the one
/// before is sent.
const LARGE: usize = 4 << 20;
/// How many of those can be under way, in each direction.
const LARGE_BLOCKS: usize = 4;

/// A pinned block, and the end of the copy that used it last. It is freed only when that copy is done.
#[derive(Debug)]
struct Block {
    pinned: Pinned,
    done: Event,
}

impl Block {
    /// Queues a copy from or to the block, and a mark after it.
    fn copy(
        &self,
        stream: &Stream,
        copy: impl for<'a> FnOnce(&'a Functions, *mut c_void) -> Result<(), Failure<'a>>,
    ) -> DriverResult<()> {
        copy(stream.enter()?, self.pinned.address())?;
        self.done.record(stream).inspect_err(|_| {
            // Without a mark nothing else waits for the copy. The error to report is that of the mark.
            let _ = stream.synchronize();
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A context that is lost runs no copy any more.
        let _ = self.done.wait();
    }
}

/// Blocks of one size, the one used longest ago first.
#[derive(Debug)]
struct Ring {
    bytes: usize,
    most: usize,
    used: Mutex<VecDeque<Block>>,
}

impl Ring {
    fn new(bytes: usize, most: usize) -> Ring {
        Ring { bytes, most, used: Mutex::default() }
    }

    /// A block that no copy uses: the oldest when its copy is done, else a new one; when there are enough, the oldest
    /// is waited for.
    fn take(&self, stream: &Stream) -> DriverResult<Block> {
        let oldest = {
            let mut used = lock(&self.used);
            let full = used.len() >= self.most;
            match used.front() {
                Some(block) if full || block.done.passed()? => used.pop_front(),
                _ => None,
            }
        };
        match oldest {
            Some(block) => block.done.wait().map(|()| block),
            None => Ok(Block {
                pinned: Pinned::new(stream.context(), self.bytes)?,
                done: Event::new(stream.context(), CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
            }),
        }
    }

    /// A block that `bytes` bytes from the device are on their way to.
    ///
    /// # Safety
    /// There are as many bytes at `from` on the device.
    unsafe fn fetch(&self, stream: &Stream, from: u64, bytes: usize) -> DriverResult<Block> {
        let block = self.take(stream)?;
        // SAFETY: the caller vouches for the device's memory; the block lives until the copy is done.
        block.copy(stream, |cuda, host| unsafe { cuda.download(host, from, bytes, stream.raw()) })?;
        Ok(block)
    }

    fn put(&self, block: Block) {
        lock(&self.used).push_back(block);
    }
}

/// The blocks of a device. Threads may copy at the same time.
#[derive(Debug)]
pub(crate) struct Staging {
    small: Ring,
    up: Ring,
    down: Ring,
    /// Shared with the downloads that are pending, which give their blocks back.
    later: Arc<Ring>,
}

/// A download that was queued, in the blocks that it arrives in.
#[derive(Debug)]
pub(crate) struct Pending {
    ring: Arc<Ring>,
    parts: Vec<(Block, usize)>,
}

impl PendingDownload for Pending {
    fn wait(self: Box<Self>) -> DriverResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.parts.iter().map(|(_, len)| len).sum());
        for (block, len) in &self.parts {
            block.done.wait()?;
            bytes.extend_from_slice(&block.pinned.as_slice()[..*len]);
        }
        Ok(bytes)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Whoever takes a block next waits for its copy.
        self.parts.drain(..).for_each(|(block, _)| self.ring.put(block));
    }
}

impl Staging {
    pub fn new() -> Staging {
        Staging {
            small: Ring::new(SMALL, SMALL_BLOCKS),
            up: Ring::new(LARGE, LARGE_BLOCKS),
            down: Ring::new(LARGE, LARGE_BLOCKS),
            later: Arc::new(Ring::new(SMALL, SMALL_BLOCKS)),
        }
    }

    /// Copies to the device, after the stream's work. `from` has been read when the call returns.
    ///
    /// # Safety
    /// There is room for `from` at `to` on the device.
    pub unsafe fn upload(&self, stream: &Stream, to: u64, from: &[u8]) -> DriverResult<()> {
        let ring = if from.len() <= SMALL { &self.small } else { &self.up };
        let mut to = to;
        for part in from.chunks(ring.bytes) {
            let mut block = ring.take(stream)?;
            block.pinned.as_mut_slice()[..part.len()].copy_from_slice(part);
            // SAFETY: the caller vouches for the device's memory; the block holds the part until the copy is done.
            block.copy(stream, |cuda, host| unsafe { cuda.upload(to, host, part.len(), stream.raw()) })?;
            ring.put(block);
            to += part.len() as u64;
        }
        Ok(())
    }

    /// Copies from the device, after the stream's work, and waits for it.
    ///
    /// # Safety
    /// There are as many bytes as `to` takes at `from` on the device.
    pub unsafe fn download(&self, stream: &Stream, from: u64, to: &mut [u8]) -> DriverResult<()> {
        let ring = &self.down;
        let receive = |(block, part): (Block, &mut [u8])| {
            block.done.wait()?;
            part.copy_from_slice(&block.pinned.as_slice()[..part.len()]);
            ring.put(block);
            DriverResult::Ok(())
        };
        let mut from = from;
        let mut under_way: Option<(Block, &mut [u8])> = None;
        for part in to.chunks_mut(ring.bytes) {
            // SAFETY: the caller vouches for the device's memory.
            let block = unsafe { ring.fetch(stream, from, part.len())? };
            from += part.len() as u64;
            // The part before is taken out while this one is on its way.
            if let Some(before) = under_way.replace((block, part)) {
                receive(before)?;
            }
        }
        under_way.map_or(Ok(()), receive)
    }

    /// Queues a copy from the device after the stream's work, and returns at once.
    ///
    /// # Safety
    /// There are `bytes` bytes at `from` on the device.
    pub unsafe fn download_later(&self, stream: &Stream, from: u64, bytes: usize) -> DriverResult<Pending> {
        let mut pending = Pending { ring: self.later.clone(), parts: Vec::new() };
        for start in (0..bytes).step_by(self.later.bytes) {
            let len = self.later.bytes.min(bytes - start);
            // SAFETY: the caller vouches for the device's memory.
            let block = unsafe { self.later.fetch(stream, from + start as u64, len)? };
            pending.parts.push((block, len));
        }
        Ok(pending)
    }
}
