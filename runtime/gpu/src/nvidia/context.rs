//! A device's primary context, and what lives in it: each is given back when it is dropped.

use super::cuda::{Cuda, Functions};
use super::deadline;
use super::error::OpenError;
use super::types::*;
use crate::driver::{DriverError, DriverResult};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The primary context of a device, which every library in this process shares.
#[derive(Debug)]
pub(super) struct Context {
    cuda: Cuda,
    device: c_int,
    handle: ContextHandle,
    /// How long a wait may take, where that is limited.
    limit: Option<Duration>,
    /// Set when a wait took longer.
    hung: OnceLock<DriverError>,
}

impl Context {
    /// A device's context, in which a wait may take as long as `limit`.
    pub fn retain(cuda: Cuda, device: c_int, limit: Option<Duration>) -> Result<Arc<Context>, OpenError> {
        let mut handle = ContextHandle::NULL;
        // SAFETY: `handle` is room for what the call writes; it is given back when this is dropped.
        unsafe { cuda.context_retain(&mut handle, device)? };
        Ok(Arc::new(Context { cuda, device, handle, limit, hung: OnceLock::new() }))
    }

    /// The driver's functions, with this context current on the calling thread. It is set at each call: a thread may work on
    /// several devices, and other libraries set it as well.
    ///
    /// After a wait that took too long it is an error: most calls would wait for the same work, those that give things back too.
    pub fn enter(&self) -> DriverResult<&Functions> {
        if let Some(hung) = self.hung.get() {
            return Err(hung.clone());
        }
        // SAFETY: the context is retained as long as this lives.
        unsafe { self.cuda.context_set(self.handle)? };
        Ok(&self.cuda)
    }

    /// The driver.
    pub fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// The driver's handle of the device.
    pub fn device(&self) -> c_int {
        self.device
    }

    /// An attribute of the device.
    pub fn attribute(&self, attribute: c_int) -> DriverResult<c_int> {
        self.cuda.attribute(self.device, attribute)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Giving back the last handle would wait for work that hangs.
        if self.hung.get().is_none() {
            // SAFETY: it was retained once. Whether giving back fails changes nothing any more.
            let _ = unsafe { self.cuda.context_release(self.device) };
        }
    }
}

/// The queue of a device's work.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    pub handle: StreamHandle,
}

impl Stream {
    pub fn new(context: &Arc<Context>) -> DriverResult<Stream> {
        let mut handle = StreamHandle::NULL;
        // SAFETY: `handle` is room for what the call writes.
        unsafe { context.enter()?.stream_create(&mut handle, STREAM_NON_BLOCKING)? };
        Ok(Stream { context: context.clone(), handle })
    }

    pub fn synchronize(&self) -> DriverResult<()> {
        if self.context.limit.is_some() {
            // An event, as the stream itself is never done while other threads go on giving it work.
            let end = Event::new(&self.context, EVENT_UNTIMED)?;
            end.record(self)?;
            return end.wait();
        }
        // SAFETY: the stream lives.
        unsafe { self.context.enter()?.stream_synchronize(self.handle)? };
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle. What is queued still runs.
        let _ = self.context.enter().map(|cuda| unsafe { cuda.stream_destroy(self.handle) });
    }
}

/// A moment in a stream's work.
#[derive(Debug)]
pub(super) struct Event {
    context: Arc<Context>,
    handle: EventHandle,
}

impl Event {
    /// An event that was not recorded yet, and counts as passed until it is.
    pub fn new(context: &Arc<Context>, flags: c_uint) -> DriverResult<Event> {
        let mut handle = EventHandle::NULL;
        // SAFETY: `handle` is room for what the call writes.
        unsafe { context.enter()?.event_create(&mut handle, flags)? };
        Ok(Event { context: context.clone(), handle })
    }

    pub fn record(&self, stream: &Stream) -> DriverResult<()> {
        // SAFETY: event and stream live.
        unsafe { self.context.enter()?.event_record(self.handle, stream.handle)? };
        Ok(())
    }

    /// True when the stream has come past it.
    pub fn passed(&self) -> DriverResult<bool> {
        // SAFETY: the event lives.
        Ok(unsafe { self.context.enter()?.event_passed(self.handle)? })
    }

    /// Waits until the stream has come past it, at most as long as the context allows.
    pub fn wait(&self) -> DriverResult<()> {
        if let Some(limit) = self.context.limit {
            if deadline::poll(limit, || self.passed())? {
                return Ok(());
            }
            return Err(self.context.hung.get_or_init(|| DriverError::Timeout(limit)).clone());
        }
        // SAFETY: the event lives.
        unsafe { self.context.enter()?.event_synchronize(self.handle)? };
        Ok(())
    }

    /// Milliseconds from `self` to `later`, both timed and passed.
    pub fn milliseconds_to(&self, later: &Event) -> DriverResult<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both events live, and `milliseconds` is room for what the call writes.
        unsafe { self.context.enter()?.event_elapsed(&mut milliseconds, self.handle, later.handle)? };
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle.
        let _ = self.context.enter().map(|cuda| unsafe { cuda.event_destroy(self.handle) });
    }
}

/// Memory of the host that the device copies from and to by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    address: *mut c_void,
    bytes: usize,
}

// SAFETY: it is plain memory that nobody else has the address of.
unsafe impl Send for Pinned {}

impl Pinned {
    pub fn new(context: &Arc<Context>, bytes: usize) -> DriverResult<Pinned> {
        let mut address = std::ptr::null_mut();
        // SAFETY: `address` is room for what the call writes.
        unsafe { context.enter()?.host_allocate(&mut address, bytes, HOST_PORTABLE)? };
        if address.is_null() {
            let message = format!("gave no memory for {bytes} bytes, and no error");
            return Err(DriverError::Call { call: "cuMemHostAlloc".into(), message });
        }
        // SAFETY: the memory is new and has that many bytes; zeros are valid bytes, which memory that was never written isn't.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { context: context.clone(), address, bytes })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: it has that many bytes, which were written when it was made; the device's copies into it are waited for
        // before it is looked at (`Block`).
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.bytes) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.bytes) }
    }

    pub fn address(&self) -> *mut c_void {
        self.address
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: nobody else has the address, and copies are waited for first (`Block`).
        let _ = self.context.enter().map(|cuda| unsafe { cuda.host_free(self.address) });
    }
}
