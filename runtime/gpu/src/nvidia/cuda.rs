//! The driver's functions, from `libcuda.so.1`.

use super::error::{OpenError, Version};
use super::types::*;
use crate::driver::DriverError;
use crate::libraries::{CUDA, Opened, functions};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

/// The earliest driver: the first with launches that have attributes, tensor maps and all that NVRTC 12 compiles.
const EARLIEST: Version = Version { major: 12, minor: 0 };

functions! {
    /// What can be asked of a driver of any age.
    Basics;
    plain { driver_version = "cuDriverGetVersion" (version: *mut c_int); }
}

functions! {
    /// What this program uses of the driver. Where a function's meaning changed, the name is that of the version used.
    Functions;
    plain {
        error_name = "cuGetErrorName" (status: c_int, name: *mut *const c_char);
        error_string = "cuGetErrorString" (status: c_int, text: *mut *const c_char);
        init = "cuInit" (flags: c_uint);
        event_query = "cuEventQuery" (event: EventHandle);
    }
    checked by Functions::check => Result<(), Failure> {
        device_count = "cuDeviceGetCount" (count: *mut c_int);
        device_get = "cuDeviceGet" (device: *mut c_int, ordinal: c_int);
        device_name = "cuDeviceGetName" (name: *mut c_char, length: c_int, device: c_int);
        device_attribute = "cuDeviceGetAttribute" (value: *mut c_int, attribute: c_int, device: c_int);
        device_memory = "cuDeviceTotalMem_v2" (bytes: *mut usize, device: c_int);
        context_retain = "cuDevicePrimaryCtxRetain" (context: *mut ContextHandle, device: c_int);
        context_release = "cuDevicePrimaryCtxRelease_v2" (device: c_int);
        context_set = "cuCtxSetCurrent" (context: ContextHandle);
        stream_create = "cuStreamCreate" (stream: *mut StreamHandle, flags: c_uint);
        stream_synchronize = "cuStreamSynchronize" (stream: StreamHandle);
        stream_destroy = "cuStreamDestroy_v2" (stream: StreamHandle);
        event_create = "cuEventCreate" (event: *mut EventHandle, flags: c_uint);
        event_record = "cuEventRecord" (event: EventHandle, stream: StreamHandle);
        event_synchronize = "cuEventSynchronize" (event: EventHandle);
        event_elapsed = "cuEventElapsedTime" (milliseconds: *mut f32, from: EventHandle, to: EventHandle);
        event_destroy = "cuEventDestroy_v2" (event: EventHandle);
        memory_info = "cuMemGetInfo_v2" (free: *mut usize, all: *mut usize);
        pool_create = "cuMemPoolCreate" (pool: *mut PoolHandle, properties: *const PoolProperties);
        pool_set = "cuMemPoolSetAttribute" (pool: PoolHandle, attribute: c_int, value: *mut c_void);
        pool_get = "cuMemPoolGetAttribute" (pool: PoolHandle, attribute: c_int, value: *mut c_void);
        pool_trim = "cuMemPoolTrimTo" (pool: PoolHandle, keep: usize);
        pool_destroy = "cuMemPoolDestroy" (pool: PoolHandle);
        allocate = "cuMemAllocFromPoolAsync" (address: *mut u64, bytes: usize, pool: PoolHandle, stream: StreamHandle);
        free = "cuMemFreeAsync" (address: u64, stream: StreamHandle);
        allocate_now = "cuMemAlloc_v2" (address: *mut u64, bytes: usize);
        free_now = "cuMemFree_v2" (address: u64);
        host_allocate = "cuMemHostAlloc" (address: *mut *mut c_void, bytes: usize, flags: c_uint);
        host_free = "cuMemFreeHost" (address: *mut c_void);
        upload = "cuMemcpyHtoDAsync_v2" (to: u64, from: *const c_void, bytes: usize, stream: StreamHandle);
        download = "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: u64, bytes: usize, stream: StreamHandle);
        copy = "cuMemcpyDtoDAsync_v2" (to: u64, from: u64, bytes: usize, stream: StreamHandle);
        fill = "cuMemsetD8Async" (to: u64, value: u8, bytes: usize, stream: StreamHandle);
        module_load = "cuModuleLoadData" (module: *mut ModuleHandle, image: *const c_void);
        module_function = "cuModuleGetFunction" (function: *mut FunctionHandle, module: ModuleHandle, name: *const c_char);
        module_unload = "cuModuleUnload" (module: ModuleHandle);
        function_get = "cuFuncGetAttribute" (value: *mut c_int, attribute: c_int, function: FunctionHandle);
        function_set = "cuFuncSetAttribute" (function: FunctionHandle, attribute: c_int, value: c_int);
        launch = "cuLaunchKernelEx" (
            config: *const LaunchConfig, function: FunctionHandle, arguments: *mut *mut c_void, extra: *mut *mut c_void
        );
        encode_tiled = "cuTensorMapEncodeTiled" (
            map: *mut EncodedMap, element: c_int, rank: c_uint, address: *mut c_void, extents: *const u64, strides: *const u64,
            tile: *const u32, steps: *const u32, interleave: c_int, swizzle: c_int, promotion: c_int, fill: c_int
        );
    }
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub call: &'static str,
    /// What it returned.
    pub status: c_int,
    /// What that means, and what to do about it.
    pub message: String,
}

impl From<Failure> for DriverError {
    fn from(failure: Failure) -> DriverError {
        DriverError::Call { call: failure.call.into(), message: failure.message }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> OpenError {
        OpenError::Driver(failure.into())
    }
}

impl Functions {
    fn check(&self, call: &'static str, status: c_int) -> Result<(), Failure> {
        if status == status::SUCCESS {
            return Ok(());
        }
        Err(Failure { call, status, message: self.message(status) })
    }

    /// Whether a stream has come past an event.
    ///
    /// # Safety
    /// The event lives.
    pub unsafe fn event_passed(&self, event: EventHandle) -> Result<bool, Failure> {
        // SAFETY: the caller vouches for the event.
        match unsafe { self.event_query(event) } {
            status::NOT_READY => Ok(false),
            status => self.check("cuEventQuery", status).map(|()| true),
        }
    }

    /// What a status means, and what to do about it.
    fn message(&self, status: c_int) -> String {
        let said = |ask: unsafe fn(&Functions, c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: `text` is room for the pointer that the call writes.
            let known = unsafe { ask(self, status, &mut text) } == status::SUCCESS && !text.is_null();
            // SAFETY: the driver's texts end in a zero and are never freed.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = said(Functions::error_name).unwrap_or_else(|| "unknown error".into());
        let text = said(Functions::error_string).unwrap_or_else(|| "the driver has no text for it".into());
        let mut message = format!("{name} ({status}), {text}");
        if status::loses_the_context(status) {
            message += "; the device's context is lost: nothing more can be done on it in this process. A kernel before this \
                        call did it: CUDA_LAUNCH_BLOCKING=1 makes its own launch fail, and compute-sanitizer finds the line";
        } else if status == status::SYSTEM_DRIVER_MISMATCH {
            message += "; the driver's library and the kernel's module are of different versions: restart the machine, or \
                        correct the container";
        } else if matches!(status, status::INVALID_IMAGE | status::NO_BINARY_FOR_GPU) {
            message += "; the driver may be older than NVRTC: see `bigmac doctor`, and name an NVRTC of its version in \
                        BIGMAC_LIBNVRTC. If the file was damaged, remove it";
        }
        message
    }
}

/// A driver that is loaded, new enough, and initialised.
pub(super) struct Cuda {
    functions: Functions,
    pub file: PathBuf,
    pub version: Version,
}

impl std::ops::Deref for Cuda {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda")
            .field("file", &self.file)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Cuda {
    /// The driver of that file, or the one that is found.
    pub fn open(file: Option<&Path>) -> Result<Cuda, OpenError> {
        let library: Opened = match file {
            Some(file) => CUDA.open_file(file)?,
            None => CUDA.open()?,
        };
        let file = library.file().to_owned();
        let basics = Basics::load(&library, "of unknown version")?;
        let mut number = 0;
        // SAFETY: `number` is room for what the call writes; it may be called before any other.
        let status = unsafe { basics.driver_version(&mut number) };
        let number = if status == status::SUCCESS { u32::try_from(number).unwrap_or(0) } else { 0 };
        let version = Version { major: number / 1000, minor: number % 1000 / 10 };
        if version < EARLIEST {
            return Err(OpenError::DriverTooOld { file, given: version, wanted: EARLIEST });
        }
        let functions = Functions::load(&library, &format!("a driver for CUDA {version}"))?;
        // SAFETY: it may be called any number of times, from any thread.
        let status = unsafe { functions.init(0) };
        if status == status::NO_DEVICE {
            return Err(OpenError::NoDevice { file, version });
        }
        functions.check("cuInit", status)?;
        Ok(Cuda { functions, file, version })
    }
}
