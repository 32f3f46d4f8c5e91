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

/// The memory of an open device. What was given back is kept for the next who asks.
#[derive(Debug)]
pub(super) enum Memory {
    /// A memory pool of the driver.
    Pool(Pool),
    /// Blocks, where the driver gives no memory from pools; and what it said.
    Blocks(Blocks, String),
}

impl Memory {
    /// The memory for a stream's work.
    pub fn open(stream: &Stream) -> DriverResult<Memory> {
        let blocks = |reason| Memory::Blocks(Blocks::new(stream.context()), reason);
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        if stream.context().attribute(attribute)? == 0 {
            return Ok(blocks("CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED is 0".into()));
        }
        // Virtual GPUs may have the attribute and refuse the calls.
        Ok(Pool::open(stream)?.map_or_else(|refusal| blocks(refusal.to_string()), Memory::Pool))
    }

    /// Where the memory comes from, for people.
    pub fn allocator(&self) -> String {
        match self {
            Memory::Pool(_) => "a memory pool of the driver".into(),
            Memory::Blocks(_, reason) => {
                format!("blocks kept by this program, as the driver has no memory pools ({reason})")
            }
        }
    }

    /// `bytes` bytes for the stream's work from now on.
    pub fn allocate(&self, bytes: usize, stream: &Stream) -> DriverResult<u64> {
        match self {
            Memory::Pool(pool) => pool.allocate(bytes, stream),
            Memory::Blocks(blocks, _) => blocks.allocate(bytes),
        }
    }

    /// Takes back `bytes` bytes that the stream's work so far may use.
    pub fn free(&self, address: u64, bytes: usize, stream: &Stream) {
        match self {
            Memory::Pool(pool) => pool.free(address, stream),
            Memory::Blocks(blocks, _) => blocks.free(address, bytes),
        }
    }

    /// Waits for the stream's work, and gives everything that is free back to the system.
    pub fn trim(&self, stream: &Stream) -> DriverResult<()> {
        stream.synchronize()?;
        match self {
            Memory::Pool(pool) => pool.trim(),
            Memory::Blocks(blocks, _) => blocks.trim(),
        }
    }

    /// Bytes that are kept and free.
    pub fn unused(&self) -> DriverResult<usize> {
        match self {
            Memory::Pool(pool) => pool.unused(),
            Memory::Blocks(blocks, _) => Ok(blocks.unused_bytes()),
        }
    }
}
