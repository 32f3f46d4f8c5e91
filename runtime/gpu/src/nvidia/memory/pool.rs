//! Memory pools of the driver.

use crate::driver::{DriverError, DriverResult};
use crate::nvidia::context::{Owned, Stream};
use crate::nvidia::cuda::{Failure, Functions};
use cudarc::driver::sys::*;

/// Memory of the device, given out and taken back in the order of a stream's work. What was taken back is kept for the
/// next who asks.
pub(super) type Pool = Owned<CUmemPoolHandle_st>;

impl Pool {
    /// A pool that has given memory once; the driver's refusal where it makes no pools, or gives nothing from them.
    pub fn open(stream: &Stream) -> DriverResult<Result<Pool, DriverError>> {
        // What a device answers that does not have what was asked for, or has a layer above it that refuses it.
        const REFUSALS: [CUresult; 3] = [
            CUresult::CUDA_ERROR_OPERATING_SYSTEM,
            CUresult::CUDA_ERROR_NOT_PERMITTED,
            CUresult::CUDA_ERROR_NOT_SUPPORTED,
        ];
        match Pool::try_new(stream, stream.enter()?) {
            Ok(pool) => Ok(Ok(pool)),
            Err(failure) if failure.is(&REFUSALS) => Ok(Err(failure.into())),
            Err(failure) => Err(failure.into()),
        }
    }

    fn try_new<'a>(stream: &'a Stream, cuda: &'a Functions) -> Result<Pool, Failure<'a>> {
        let context = stream.context();
        let properties = CUmemPoolProps {
            allocType: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation {
                type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: context.device(),
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            // Reserved in CUDA 12.0, where they must be zero; zero is the default since.
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        // SAFETY: the properties are whole, and `pool` is room for what the call writes. The driver keeps what is still
        // in use of a pool that is destroyed until it is given back.
        let pool = unsafe {
            Owned::make(context, Functions::pool_destroy, |pool| cuda.pool_create(pool, &properties))
        }?;
        // Otherwise all that is free goes back to the system at every synchronisation, and is asked for again after it.
        let mut threshold = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute's value is a u64.
        unsafe { cuda.pool_set(pool.raw(), attribute, (&raw mut threshold).cast())? };
        match pool.take(cuda, 256, stream) {
            // SAFETY: the memory is the pool's, and nothing else has its address.
            Ok(address) => unsafe { cuda.free(address, stream.raw())? },
            // Another process has it all now, and may give it back.
            Err(failure) if failure.is(&[CUresult::CUDA_ERROR_OUT_OF_MEMORY]) => {}
            Err(failure) => return Err(failure),
        }
        Ok(pool)
    }

    fn take<'a>(&self, cuda: &'a Functions, bytes: usize, stream: &Stream) -> Result<u64, Failure<'a>> {
        let mut address = 0;
        // SAFETY: pool and stream live, and `address` is room for what the call writes.
        unsafe { cuda.allocate(&mut address, bytes, self.raw(), stream.raw())? };
        Ok(address)
    }

    pub fn allocate(&self, bytes: usize, stream: &Stream) -> DriverResult<u64> {
        self.take(stream.enter()?, bytes, stream).map_err(|failure| failure.of_allocation(bytes))
    }

    /// Takes memory back, after the stream's work so far.
    pub fn free(&self, address: u64, stream: &Stream) {
        // That a call before this one broke the context comes up at the next call that can say so.
        // SAFETY: the address is that of an allocation of this pool, as the driver's calls trust.
        let _ = stream.enter().map(|cuda| unsafe { cuda.free(address, stream.raw()) });
    }

    /// Gives everything that is free back to the system.
    pub fn trim(&self) -> DriverResult<()> {
        // SAFETY: the pool lives.
        unsafe { self.enter()?.pool_trim(self.raw(), 0)? };
        Ok(())
    }

    /// Bytes that the pool holds and that are free.
    pub fn unused(&self) -> DriverResult<usize> {
        let cuda = self.enter()?;
        let get = |attribute| {
            let mut value = 0_u64;
            // SAFETY: both attributes' values are u64.
            unsafe { cuda.pool_get(self.raw(), attribute, (&raw mut value).cast())? };
            DriverResult::Ok(value)
        };
        let reserved = get(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        Ok(reserved.saturating_sub(get(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?) as usize)
    }
}
