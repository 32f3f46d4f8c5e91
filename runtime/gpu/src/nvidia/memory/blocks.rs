//! Device memory without the driver's memory pools, which some virtual GPUs lack.

use crate::driver::{DriverError, DriverResult};
use crate::nvidia::context::Context;
use crate::shared::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What every block's size is a multiple of, which is how far apart the driver's own allocations start.
const UNIT: usize = 512;

/// Blocks of device memory that are kept when they are given back, by size.
///
/// A block is given out again at once: all work of a device is on one stream, so what the next owner queues runs after
/// what the last one did.
#[derive(Debug)]
pub(crate) struct Blocks {
    context: Arc<Context>,
    /// Addresses of the blocks of a size that are free.
    unused: Mutex<HashMap<usize, Vec<u64>>>,
}

impl Blocks {
    pub fn new(context: &Arc<Context>) -> Blocks {
        Blocks { context: context.clone(), unused: Mutex::default() }
    }

    /// The address of `bytes` bytes.
    pub fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        let size = block_size(bytes).ok_or(DriverError::OutOfMemory(bytes))?;
        if let Some(address) = lock(&self.unused).get_mut(&size).and_then(Vec::pop) {
            return Ok(address);
        }
        let cuda = self.context.enter()?;
        let mut address = 0;
        // SAFETY: `address` is room for what the call writes.
        unsafe { cuda.allocate_now(&mut address, size) }.map_err(|failure| failure.of_allocation(bytes))?;
        Ok(address)
    }

    /// Keeps an allocation for the next who asks for as much.
    pub fn free(&self, address: u64, bytes: usize) {
        if let Some(size) = block_size(bytes) {
            lock(&self.unused).entry(size).or_default().push(address);
        }
    }

    /// Gives every free block back to the driver. The caller has waited for the work that used them.
    pub fn trim(&self) -> DriverResult<()> {
        let blocks = std::mem::take(&mut *lock(&self.unused));
        let mut result = Ok(());
        for address in blocks.into_values().flatten() {
            let cuda = self.context.enter();
            // SAFETY: the block came from the driver, its last owner gave it back, and it has just left the map.
            let freed = cuda.and_then(|cuda| unsafe { cuda.free_now(address) }.map_err(DriverError::from));
            result = result.and(freed);
        }
        result
    }

    /// Bytes of free blocks.
    pub fn unused_bytes(&self) -> usize {
        lock(&self.unused).iter().map(|(size, blocks)| size * blocks.len()).sum()
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // Whether giving back fails changes nothing any more.
        let _ = self.trim();
    }
}

/// The size of the block for so many bytes: eight sizes from each power of two to the next, so that at most an eighth
/// is left over and allocations of nearly the same size share blocks. `None` when there is no such number.
fn block_size(bytes: usize) -> Option<usize> {
    let step = (1 << bytes.max(1).ilog2()) / 8;
    bytes.max(1).checked_next_multiple_of(step.max(UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_waste_little_and_are_their_own_size() {
        for bytes in (1..5000).chain((1..60).flat_map(|n| [(1_usize << n) - 1, 1 << n, (1 << n) + 1])) {
            let size = block_size(bytes).unwrap();
            assert!(size >= bytes && size.is_multiple_of(UNIT), "{bytes} {size}");
            assert!(size - bytes <= (bytes / 8).max(UNIT), "{bytes} {size}");
            assert_eq!(block_size(size), Some(size));
        }
        assert_eq!(block_size(usize::MAX), None);
    }
}
