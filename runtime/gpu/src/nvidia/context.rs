//! A device's primary context, and what lives in it.

use super::cuda::{Cuda, Failure, Functions};
use super::deadline;
use super::error::OpenError;
use crate::driver::{DriverError, DriverResult};
use cudarc::driver::sys::*;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A pointer by which the driver knows an object.
#[derive(Debug)]
pub(super) struct Handle<T>(pub *mut T);

// SAFETY: the driver takes its handles from any thread, at the same time too.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// The primary context of a device, which every library in this process shares.
#[derive(Debug)]
pub(super) struct Context {
    cuda: Cuda,
    device: CUdevice,
    handle: Handle<CUctx_st>,
    /// How long a wait may take, where that is limited.
    limit: Option<Duration>,
    /// Set when a wait took longer.
    hung: OnceLock<DriverError>,
}

impl Context {
    /// A device's context, in which a wait may take as long as `limit`.
    pub fn retain(cuda: Cuda, device: CUdevice, limit: Option<Duration>) -> Result<Arc<Context>, OpenError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is room for what the call writes; it is given back when this is dropped.
        unsafe { cuda.context_retain(&mut handle, device)? };
        Ok(Arc::new(Context { cuda, device, handle: Handle(handle), limit, hung: OnceLock::new() }))
    }

    /// The driver's functions, with this context current on the calling thread. It is set at each call: a thread may
    /// work on several devices, and other libraries set it as well.
    ///
    /// After a wait that took too long it is an error: most calls would wait for the same work, those that give things
    /// back too.
    pub fn enter(&self) -> DriverResult<&Functions> {
        if let Some(hung) = self.hung.get() {
            return Err(hung.clone());
        }
        // SAFETY: the context is retained as long as this lives.
        unsafe { self.cuda.context_set(self.handle.0)? };
        Ok(&self.cuda)
    }

    /// The driver's handle of the device.
    pub fn device(&self) -> CUdevice {
        self.device
    }

    /// An attribute of the device.
    pub fn attribute(&self, attribute: CUdevice_attribute) -> DriverResult<c_int> {
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

/// What the driver made in a context; it goes back to the driver when this is dropped.
#[derive(Debug)]
pub(super) struct Owned<T> {
    context: Arc<Context>,
    handle: Handle<T>,
    give_back: GiveBack<T>,
}

type GiveBack<T> = for<'a> unsafe fn(&'a Functions, *mut T) -> Result<(), Failure<'a>>;

impl<T> Owned<T> {
    /// What `make` writes, in a context that the caller has entered.
    ///
    /// # Safety
    /// `give_back` may be called once with what `make` writes, when nothing uses it any more.
    pub unsafe fn make<'a>(
        context: &'a Arc<Context>,
        give_back: GiveBack<T>,
        make: impl FnOnce(&mut *mut T) -> Result<(), Failure<'a>>,
    ) -> Result<Owned<T>, Failure<'a>> {
        let mut handle = std::ptr::null_mut();
        make(&mut handle)?;
        Ok(Owned { context: context.clone(), handle: Handle(handle), give_back })
    }

    /// As the driver takes it.
    pub fn raw(&self) -> *mut T {
        self.handle.0
    }

    /// Where it lives.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The driver's functions, with its context current.
    pub fn enter(&self) -> DriverResult<&Functions> {
        self.context.enter()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // A context that is lost or hangs keeps what it has.
        // SAFETY: `make` was promised that it may be given back, and nothing else has the handle.
        let _ = self.enter().map(|cuda| unsafe { (self.give_back)(cuda, self.raw()) });
    }
}

/// The queue of a device's work. Dropping it leaves what is queued to run.
pub(super) type Stream = Owned<CUstream_st>;

impl Stream {
    pub fn new(context: &Arc<Context>) -> DriverResult<Stream> {
        // Not waiting for the default stream, which other libraries may use.
        const FLAGS: u32 = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let cuda = context.enter()?;
        // SAFETY: `stream` is room for what the call writes, and streams are destroyed by that function.
        let stream = unsafe {
            Owned::make(context, Functions::stream_destroy, |stream| cuda.stream_create(stream, FLAGS))
        };
        Ok(stream?)
    }

    pub fn synchronize(&self) -> DriverResult<()> {
        if self.context.limit.is_some() {
            // An event, as the stream itself is never done while other threads go on giving it work.
            let end = Event::new(self.context(), CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            end.record(self)?;
            return end.wait();
        }
        // SAFETY: the stream lives.
        unsafe { self.enter()?.stream_synchronize(self.raw())? };
        Ok(())
    }
}

/// A moment in a stream's work.
pub(super) type Event = Owned<CUevent_st>;

impl Event {
    /// An event with or without a time. Until it is recorded it counts as passed.
    pub fn new(context: &Arc<Context>, flags: CUevent_flags) -> DriverResult<Event> {
        let cuda = context.enter()?;
        // SAFETY: `event` is room for what the call writes, and events are destroyed by that function.
        let event = unsafe {
            Owned::make(context, Functions::event_destroy, |event| cuda.event_create(event, flags as u32))
        };
        Ok(event?)
    }

    pub fn record(&self, stream: &Stream) -> DriverResult<()> {
        // SAFETY: event and stream live.
        unsafe { self.enter()?.event_record(self.raw(), stream.raw())? };
        Ok(())
    }

    /// True when the stream has come past it.
    pub fn passed(&self) -> DriverResult<bool> {
        // SAFETY: the event lives.
        match unsafe { self.enter()?.event_query(self.raw()) } {
            Ok(()) => Ok(true),
            Err(failure) if failure.is(&[CUresult::CUDA_ERROR_NOT_READY]) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
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
        unsafe { self.enter()?.event_synchronize(self.raw())? };
        Ok(())
    }

    /// Milliseconds from `self` to `later`, both timed and passed.
    pub fn milliseconds_to(&self, later: &Event) -> DriverResult<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both events live, and `milliseconds` is room for what the call writes.
        unsafe { self.enter()?.event_elapsed(&mut milliseconds, self.raw(), later.raw())? };
        Ok(milliseconds)
    }
}

/// Memory of the host that the device copies from and to by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    memory: Owned<c_void>,
    bytes: usize,
}

impl Pinned {
    pub fn new(context: &Arc<Context>, bytes: usize) -> DriverResult<Pinned> {
        let cuda = context.enter()?;
        // SAFETY: `address` is room for what the call writes; copies are waited for before it is freed (`Block`).
        let memory = unsafe {
            Owned::make(context, Functions::host_free, |address| {
                cuda.host_allocate(address, bytes, CU_MEMHOSTALLOC_PORTABLE)
            })
        }?;
        if memory.raw().is_null() {
            let message = format!("gave no memory for {bytes} bytes, and no error");
            return Err(DriverError::call("cuMemHostAlloc", message));
        }
        // SAFETY: the memory is new and has that many bytes; zeros are valid bytes, which memory that was never written
        // is not.
        unsafe { memory.raw().cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { memory, bytes })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: it has that many bytes, which were written when it was made; the device's copies into it are waited
        // for before it is looked at (`Block`).
        unsafe { std::slice::from_raw_parts(self.memory.raw().cast(), self.bytes) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.memory.raw().cast(), self.bytes) }
    }

    pub fn address(&self) -> *mut c_void {
        self.memory.raw()
    }
}
