//! The driver's functions, from `libcuda.so.1`.

use super::error::{OpenError, Version};
use crate::driver::DriverError;
use crate::libraries::{CUDA, functions};
use cudarc::driver::sys::{self, CUresult, *};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

/// The earliest driver: the first with launches that have attributes, tensor maps and all that NVRTC 12 compiles.
const EARLIEST: Version = Version { major: 12, minor: 0 };

functions! {
    /// What this program uses of the driver. Where a function's meaning changed, the name is that of the version used.
    Functions from sys, checked by Functions::check: CUresult => Result<(), Failure<'_>> {
        init = cuInit (flags: c_uint);
        device_count = cuDeviceGetCount (count: *mut c_int);
        device_get = cuDeviceGet (device: *mut CUdevice, ordinal: c_int);
        device_name = cuDeviceGetName (name: *mut c_char, length: c_int, device: CUdevice);
        device_attribute = cuDeviceGetAttribute (value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
        device_memory = cuDeviceTotalMem_v2 (bytes: *mut usize, device: CUdevice);
        context_retain = cuDevicePrimaryCtxRetain (context: *mut CUcontext, device: CUdevice);
        context_release = cuDevicePrimaryCtxRelease_v2 (device: CUdevice);
        context_set = cuCtxSetCurrent (context: CUcontext);
        stream_create = cuStreamCreate (stream: *mut CUstream, flags: c_uint);
        stream_synchronize = cuStreamSynchronize (stream: CUstream);
        stream_destroy = cuStreamDestroy_v2 (stream: CUstream);
        event_create = cuEventCreate (event: *mut CUevent, flags: c_uint);
        event_record = cuEventRecord (event: CUevent, stream: CUstream);
        event_query = cuEventQuery (event: CUevent);
        event_synchronize = cuEventSynchronize (event: CUevent);
        event_elapsed = cuEventElapsedTime_v2 | cuEventElapsedTime (milliseconds: *mut f32, from: CUevent, to: CUevent);
        event_destroy = cuEventDestroy_v2 (event: CUevent);
        memory_info = cuMemGetInfo_v2 (free: *mut usize, all: *mut usize);
        pool_create = cuMemPoolCreate (pool: *mut CUmemoryPool, properties: *const CUmemPoolProps);
        pool_set = cuMemPoolSetAttribute (pool: CUmemoryPool, attribute: CUmemPool_attribute, value: *mut c_void);
        pool_get = cuMemPoolGetAttribute (pool: CUmemoryPool, attribute: CUmemPool_attribute, value: *mut c_void);
        pool_trim = cuMemPoolTrimTo (pool: CUmemoryPool, keep: usize);
        pool_destroy = cuMemPoolDestroy (pool: CUmemoryPool);
        allocate = cuMemAllocFromPoolAsync (address: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream);
        free = cuMemFreeAsync (address: CUdeviceptr, stream: CUstream);
        allocate_now = cuMemAlloc_v2 (address: *mut CUdeviceptr, bytes: usize);
        free_now = cuMemFree_v2 (address: CUdeviceptr);
        host_allocate = cuMemHostAlloc (address: *mut *mut c_void, bytes: usize, flags: c_uint);
        host_free = cuMemFreeHost (address: *mut c_void);
        upload = cuMemcpyHtoDAsync_v2 (to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
        download = cuMemcpyDtoHAsync_v2 (to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
        copy = cuMemcpyDtoDAsync_v2 (to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
        fill = cuMemsetD8Async (to: CUdeviceptr, value: u8, bytes: usize, stream: CUstream);
        module_load = cuModuleLoadData (module: *mut CUmodule, image: *const c_void);
        module_function = cuModuleGetFunction (function: *mut CUfunction, module: CUmodule, name: *const c_char);
        module_unload = cuModuleUnload (module: CUmodule);
        function_get = cuFuncGetAttribute (value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction);
        function_set = cuFuncSetAttribute (function: CUfunction, attribute: CUfunction_attribute, value: c_int);
        launch = cuLaunchKernelEx (
            config: *const CUlaunchConfig, function: CUfunction, arguments: *mut *mut c_void, extra: *mut *mut c_void
        );
        encode_tiled = cuTensorMapEncodeTiled (
            map: *mut CUtensorMap, element: CUtensorMapDataType, rank: c_uint, address: *mut c_void,
            extents: *const u64, strides: *const u64, tile: *const u32, steps: *const u32,
            interleave: CUtensorMapInterleave, swizzle: CUtensorMapSwizzle, promotion: CUtensorMapL2promotion,
            fill: CUtensorMapFloatOOBfill
        );
    }
    unchecked {
        error_name = cuGetErrorName (status: u32, name: *mut *const c_char) -> u32;
        error_string = cuGetErrorString (status: u32, text: *mut *const c_char) -> u32;
    }
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    cuda: &'a Functions,
    pub call: &'static str,
    /// What it returned; newer drivers return more than cudarc knows.
    status: u32,
}

impl Functions {
    fn check(&self, call: &'static str, status: u32) -> Result<(), Failure<'_>> {
        if status == SUCCESS { Ok(()) } else { Err(Failure { cuda: self, call, status }) }
    }
}

const SUCCESS: u32 = CUresult::CUDA_SUCCESS as u32;

impl Failure<'_> {
    /// Whether the status is one of these.
    pub fn is(&self, statuses: &[CUresult]) -> bool {
        statuses.iter().any(|&status| status as u32 == self.status)
    }

    /// The error for an allocation of `bytes` bytes.
    pub fn of_allocation(self, bytes: usize) -> DriverError {
        if self.is(&[CUresult::CUDA_ERROR_OUT_OF_MEMORY]) {
            DriverError::OutOfMemory(bytes)
        } else {
            self.into()
        }
    }

    /// The error with more than the function's name about what was tried.
    pub fn of(&self, what: impl std::fmt::Display) -> DriverError {
        DriverError::call(format!("{} of {what}", self.call), self.message())
    }

    /// What the status means, and what to do about it.
    pub fn message(&self) -> String {
        use CUresult::*;
        /// After these nothing works in the context any more: memory was corrupted, or a kernel was stopped midway.
        const LOST: [CUresult; 10] = [
            CUDA_ERROR_ECC_UNCORRECTABLE,
            CUDA_ERROR_ILLEGAL_ADDRESS,
            CUDA_ERROR_LAUNCH_TIMEOUT,
            CUDA_ERROR_ASSERT,
            CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUDA_ERROR_MISALIGNED_ADDRESS,
            CUDA_ERROR_INVALID_ADDRESS_SPACE,
            CUDA_ERROR_INVALID_PC,
            CUDA_ERROR_LAUNCH_FAILED,
        ];
        let said = |ask: unsafe fn(&Functions, u32, *mut *const c_char) -> u32| {
            let mut text = std::ptr::null();
            // SAFETY: `text` is room for the pointer that the call writes.
            let known = unsafe { ask(self.cuda, self.status, &mut text) } == SUCCESS && !text.is_null();
            // SAFETY: the driver's texts end in a zero and are never freed.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = said(Functions::error_name).unwrap_or_else(|| "unknown error".into());
        let text = said(Functions::error_string).unwrap_or_else(|| "the driver has no text for it".into());
        let advice = if self.is(&LOST) {
            "; the device's context is lost: nothing more can be done on it in this process. A kernel before this call did it: \
             CUDA_LAUNCH_BLOCKING=1 makes its own launch fail, and compute-sanitizer finds the line"
        } else if self.is(&[CUDA_ERROR_SYSTEM_DRIVER_MISMATCH]) {
            "; the driver's library and the kernel's module are of different versions: restart the machine, or correct the container"
        } else if self.is(&[CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NO_BINARY_FOR_GPU]) {
            "; the driver may be older than NVRTC: see `bigmac doctor`, and name an NVRTC of its version in BIGMAC_LIBNVRTC. If the \
             file was damaged, remove it"
        } else if self.call == "cuInit" {
            "; `nvidia-smi` tells whether the driver works"
        } else {
            ""
        };
        format!("{name} ({}), {text}{advice}", self.status)
    }
}

impl From<Failure<'_>> for DriverError {
    fn from(failure: Failure<'_>) -> DriverError {
        DriverError::call(failure.call, failure.message())
    }
}

impl From<Failure<'_>> for OpenError {
    fn from(failure: Failure<'_>) -> OpenError {
        OpenError::Driver(failure.into())
    }
}

/// A driver that is loaded, new enough, and initialised.
#[derive(Debug)]
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

impl Cuda {
    /// The driver of that file, or the one that is found.
    pub fn open(file: Option<&Path>) -> Result<Cuda, OpenError> {
        const VERSION: &str = "cuDriverGetVersion";
        let library = file.map_or_else(|| CUDA.open(), |file| CUDA.open_file(file))?;
        let file = library.file().to_owned();
        // A driver of any age has this one, and may lack others.
        // SAFETY: the type is that of cuda.h.
        let ask: unsafe extern "C" fn(*mut c_int) -> u32 =
            unsafe { library.function(VERSION, &[], "of unknown version")? };
        let mut number = 0;
        // SAFETY: `number` is room for what the call writes; it may be called before any other.
        let status = unsafe { ask(&mut number) };
        if status != SUCCESS {
            return Err(library.refused(VERSION, status).into());
        }
        let number = u32::try_from(number).unwrap_or(0);
        let version = Version { major: number / 1000, minor: number % 1000 / 10 };
        if version < EARLIEST {
            return Err(OpenError::DriverTooOld { file, given: version, wanted: EARLIEST });
        }
        let functions = Functions::load(&library, &format!("a driver for CUDA {version}"))?;
        // SAFETY: it may be called any number of times, from any thread.
        match unsafe { functions.init(0) } {
            Ok(()) => {}
            Err(failure) if failure.is(&[CUresult::CUDA_ERROR_NO_DEVICE]) => {
                return Err(OpenError::NoDevice { file, version });
            }
            Err(failure) => return Err(failure.of(file.display()).into()),
        }
        Ok(Cuda { functions, file, version })
    }
}
