//! Memory pools of the driver.

use crate::driver::{DriverError, DriverResult};
use crate::nvidia::context::{Context, Stream};
use crate::nvidia::cuda::Failure;
use crate::nvidia::types::*;
use std::sync::Arc;

/// Memory of the device, given out and taken back in the order of a stream's work. What was taken back is kept for the next who asks.
#[derive(Debug)]
pub(super) struct Pool {
    context: Arc<Context>,
    handle: PoolHandle,
}

impl Pool {
    /// A pool that has given memory once; the driver's refusal where it makes no pools, or gives nothing from them.
    pub fn open(context: &Arc<Context>, stream: &Stream) -> DriverResult<Result<Pool, Failure>> {
        match Pool::new(context).and_then(|pool| pool.try_once(stream).map(|()| pool)) {
            Ok(pool) => Ok(Ok(pool)),
            Err(Unusable::Refused(refusal)) => Ok(Err(refusal)),
            Err(Unusable::Failed(error)) => Err(error),
        }
    }

    fn new(context: &Arc<Context>) -> Result<Pool, Unusable> {
        let cuda = context.enter()?;
        let mut handle = PoolHandle::NULL;
        // SAFETY: the properties are whole, and `handle` is room for what the call writes.
        unsafe { cuda.pool_create(&mut handle, &PoolProperties::on(context.device()))? };
        let pool = Pool { context: context.clone(), handle };
        // Otherwise all that is free goes back to the system at every synchronisation, and is asked for again after it.
        let mut threshold = u64::MAX;
        // SAFETY: the attribute's value is a u64.
        unsafe { cuda.pool_set(handle, pool_attribute::RELEASE_THRESHOLD, (&raw mut threshold).cast())? };
        Ok(pool)
    }

    /// Takes some memory and gives it back.
    fn try_once(&self, stream: &Stream) -> Result<(), Unusable> {
        let cuda = self.context.enter()?;
        let mut address = 0;
        // SAFETY: pool and stream live, and `address` is room for what the call writes.
        match unsafe { cuda.allocate(&mut address, 256, self.handle, stream.handle) } {
            // SAFETY: the memory is the pool's, and nobody else has its address.
            Ok(()) => unsafe { cuda.free(address, stream.handle) }.map_err(Unusable::from),
            // Another process has it all now, and may give it back.
            Err(failure) if failure.status == status::OUT_OF_MEMORY => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    pub fn allocate(&self, bytes: usize, stream: &Stream) -> DriverResult<u64> {
        let cuda = self.context.enter()?;
        let mut address = 0;
        // SAFETY: pool and stream live, and `address` is room for what the call writes.
        match unsafe { cuda.allocate(&mut address, bytes, self.handle, stream.handle) } {
            Ok(()) => Ok(address),
            Err(failure) if failure.status == status::OUT_OF_MEMORY => Err(DriverError::OutOfMemory(bytes)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Takes memory back, behind the stream's work so far.
    pub fn free(&self, address: u64, stream: &Stream) {
        // That a call before this one broke the context comes up at the next call that can say so.
        // SAFETY: the address is that of an allocation of this pool, as the driver's calls trust.
        let _ = self.context.enter().map(|cuda| unsafe { cuda.free(address, stream.handle) });
    }

    /// Gives everything that is free back to the system.
    pub fn trim(&self) -> DriverResult<()> {
        // SAFETY: the pool lives.
        unsafe { self.context.enter()?.pool_trim(self.handle, 0)? };
        Ok(())
    }

    /// Bytes that the pool holds and that are free.
    pub fn unused(&self) -> DriverResult<usize> {
        let cuda = self.context.enter()?;
        let get = |attribute| {
            let mut value = 0_u64;
            // SAFETY: both attributes' values are u64.
            unsafe { cuda.pool_get(self.handle, attribute, (&raw mut value).cast())? };
            DriverResult::Ok(value)
        };
        Ok(get(pool_attribute::RESERVED)?.saturating_sub(get(pool_attribute::USED)?) as usize)
    }
}

/// Why the pool is not used.
enum Unusable {
    /// The driver has none.
    Refused(Failure),
    Failed(DriverError),
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Unusable {
        if status::is_refusal(failure.status) {
            Unusable::Refused(failure)
        } else {
            Unusable::Failed(failure.into())
        }
    }
}

impl From<DriverError> for Unusable {
    fn from(error: DriverError) -> Unusable {
        Unusable::Failed(error)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle; the driver keeps what is still in use until it is given back.
        let _ = self.context.enter().map(|cuda| unsafe { cuda.pool_destroy(self.handle) });
    }
}
