//! Where a device's memory comes from.

mod blocks;
mod pool;
mod staging;

use crate::driver::DriverResult;
use crate::nvidia::context::Stream;
use blocks::Blocks;
use cudarc::driver::sys::CUdevice_attribute;
use pool::Pool;

pub(super) use staging::Staging;

/// Who keeps the memory of a GPU that was given back, for the next who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// A memory pool of the driver.
    Pool,
    /// This program, as the driver gives no memory from pools.
    Blocks {
        /// What the driver said.
        reason: String,
    },
}

impl std::fmt::Display for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Allocator::Pool => f.write_str("a memory pool of the driver"),
            Allocator::Blocks { reason } => {
                write!(f, "blocks kept by this program, as the driver has no memory pools ({reason})")
            }
        }
    }
}

/// The memory of an open device: a pool where the driver has them, else blocks.
#[derive(Debug)]
pub(super) struct Memory {
    kept: Kept,
    allocator: Allocator,
}

#[derive(Debug)]
enum Kept {
    Pool(Pool),
    Blocks(Blocks),
}

impl Memory {
    /// The memory for a stream's work.
    pub fn open(stream: &Stream) -> DriverResult<Memory> {
        let context = stream.context();
        let blocks = |reason| Memory {
            kept: Kept::Blocks(Blocks::new(context)),
            allocator: Allocator::Blocks { reason },
        };
        if context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? == 0 {
            return Ok(blocks("CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED is 0".into()));
        }
        // Virtual GPUs may have the attribute and refuse the calls.
        Ok(match Pool::open(stream)? {
            Ok(pool) => Memory { kept: Kept::Pool(pool), allocator: Allocator::Pool },
            Err(refusal) => blocks(refusal.to_string()),
        })
    }

    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// `bytes` bytes for the stream's work from now on.
    pub fn allocate(&self, bytes: usize, stream: &Stream) -> DriverResult<u64> {
        match &self.kept {
            Kept::Pool(pool) => pool.allocate(bytes, stream),
            Kept::Blocks(blocks) => blocks.allocate(bytes),
        }
    }

    /// Takes back `bytes` bytes that the stream's work so far may use.
    pub fn free(&self, address: u64, bytes: usize, stream: &Stream) {
        match &self.kept {
            Kept::Pool(pool) => pool.free(address, stream),
            Kept::Blocks(blocks) => blocks.free(address, bytes),
        }
    }

    /// Waits for the stream's work, and gives everything that is free back to the system.
    pub fn trim(&self, stream: &Stream) -> DriverResult<()> {
        stream.synchronize()?;
        match &self.kept {
            Kept::Pool(pool) => pool.trim(),
            Kept::Blocks(blocks) => blocks.trim(),
        }
    }

    /// Bytes that are kept and free.
    pub fn unused(&self) -> DriverResult<usize> {
        match &self.kept {
            Kept::Pool(pool) => pool.unused(),
            Kept::Blocks(blocks) => Ok(blocks.unused_bytes()),
        }
    }
}
