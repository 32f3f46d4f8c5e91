//! An open GPU: one context, one stream, one source of memory.

use super::architecture::Architecture;
use super::context::{Context, Event, Stream};
use super::cuda::Cuda;
use super::deadline;
use super::error::OpenError;
use super::machine::DeviceInfo;
use super::memory::{Memory, Staging};
use super::module::{Kernel, Module};
use super::nvrtc::Compiler;
use crate::cache::Cache;
use crate::driver::{Driver, DriverError, DriverResult, Function, Geometry, Mark, PendingDownload};
use crate::launch::{Compiled, Program};
use crate::launch::{Swizzle, TensorMap, TensorMapShape};
use crate::shared::lock;
use cudarc::driver::sys::*;
use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Bytes of dynamic shared memory above which a kernel wants all that a multiprocessor can have: those kernels stage
/// what they read there themselves, and several blocks fit only if the L1 cache does not take the room.
const LARGE_SHARED: u32 = 48 << 10;

/// An NVIDIA GPU, through its driver. All ranks on it share this one; calls may come from any thread.
#[derive(Debug)]
pub struct Nvidia {
    // In the order in which they are given back. Each holds the context, which goes last.
    marks: Mutex<Marks>,
    staging: Staging,
    loaded: RwLock<Vec<Kernel>>,
    modules: Mutex<HashMap<PathBuf, Module>>,
    pub(super) memory: Memory,
    stream: Stream,
    compiler: Compiler,
    cache: Cache,
    info: DeviceInfo,
    target: String,
    /// Bytes of shared memory that a block can have.
    shared_per_block: c_int,
}

/// Timed events, by number. Events that were given back are used again.
#[derive(Debug, Default)]
struct Marks {
    next: u64,
    live: HashMap<u64, Arc<Event>>,
    spare: Vec<Arc<Event>>,
}

impl Nvidia {
    /// Opens a GPU, and the compiler for it: of NVRTC 12 and 13, where both are found, the one that the driver is
    /// certain to load the results of.
    ///
    /// # Errors
    /// Also when the GPU is older than sm_80, or [`TIMEOUT`](super::TIMEOUT) is not a time.
    pub fn open(ordinal: usize) -> Result<Nvidia, OpenError> {
        let limit = deadline::from_environment()?;
        let cuda = Cuda::open(None)?;
        let compiler = Compiler::open_for(cuda.version)?;
        Nvidia::open_with(cuda, compiler, Cache::open()?, ordinal, limit)
    }

    /// As [`Nvidia::open`], with a driver, a compiler and a cache that are open, and a limit for every wait.
    pub(super) fn open_with(
        cuda: Cuda,
        compiler: Compiler,
        cache: Cache,
        ordinal: usize,
        limit: Option<Duration>,
    ) -> Result<Nvidia, OpenError> {
        let (device, info) = cuda.device(ordinal)?;
        let DeviceInfo { name, architecture, .. } = info.clone();
        if architecture < Architecture::EARLIEST {
            let wanted = Architecture::EARLIEST;
            return Err(OpenError::Unsupported { ordinal, name, given: architecture, wanted });
        }
        let target = architecture.target();
        compiler.check_target(&target)?;
        let most_shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_per_block = cuda.attribute(device, most_shared)?;
        let stream = Stream::new(&Context::retain(cuda, device, limit)?)?;
        Ok(Nvidia {
            marks: Mutex::default(),
            staging: Staging::new(),
            loaded: RwLock::default(),
            modules: Mutex::default(),
            memory: Memory::open(&stream)?,
            stream,
            compiler,
            cache,
            info,
            target,
            shared_per_block,
        })
    }
}

impl Driver for Nvidia {
    fn name(&self) -> String {
        self.info.name.clone()
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn processors(&self) -> usize {
        self.info.processors
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        let (mut free, mut all) = (0, 0);
        // SAFETY: both are room for what the call writes.
        unsafe { self.stream.enter()?.memory_info(&mut free, &mut all)? };
        Ok((free + self.memory.unused()?, all))
    }

    fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        self.memory.allocate(bytes, &self.stream)
    }

    fn free(&self, address: u64, bytes: usize) {
        self.memory.free(address, bytes, &self.stream);
    }

    fn trim(&self) -> DriverResult<()> {
        self.memory.trim(&self.stream)
    }

    fn upload(&self, to: u64, from: &[u8]) -> DriverResult<()> {
        // SAFETY: there is room for it, as the trait's calls trust.
        unsafe { self.staging.upload(&self.stream, to, from) }
    }

    fn download(&self, from: u64, to: &mut [u8]) -> DriverResult<()> {
        // SAFETY: there are as many bytes, as the trait's calls trust.
        unsafe { self.staging.download(&self.stream, from, to) }
    }

    fn download_later(&self, from: u64, bytes: usize) -> DriverResult<Box<dyn PendingDownload>> {
        // SAFETY: there are as many bytes, as the trait's calls trust.
        let pending = unsafe { self.staging.download_later(&self.stream, from, bytes)? };
        Ok(Box::new(pending))
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> DriverResult<()> {
        // SAFETY: both ranges are in live allocations, as the trait's calls trust.
        unsafe { self.stream.enter()?.copy(to, from, bytes, self.stream.raw())? };
        Ok(())
    }

    fn fill(&self, to: u64, value: u8, bytes: usize) -> DriverResult<()> {
        // SAFETY: the range is in a live allocation, as the trait's calls trust.
        unsafe { self.stream.enter()?.fill(to, value, bytes, self.stream.raw())? };
        Ok(())
    }

    fn synchronize(&self) -> DriverResult<()> {
        self.stream.synchronize()
    }

    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled> {
        self.compiler.compile_cached(&self.target, program, &self.cache)
    }

    fn load(&self, compiled: &Compiled, kernel: &str) -> DriverResult<Function> {
        let mut modules = lock(&self.modules);
        if !modules.contains_key(&compiled.image) {
            modules.insert(compiled.image.clone(), Module::load(self.stream.context(), &compiled.image)?);
        }
        let clusters = self.info.architecture.major >= 9;
        let kernel = modules[&compiled.image].kernel(kernel, self.shared_per_block, clusters)?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.push(kernel);
        Ok(Function(loaded.len() as u64 - 1))
    }

    unsafe fn launch(
        &self,
        function: Function,
        geometry: &Geometry,
        arguments: &mut [*mut c_void],
    ) -> DriverResult<()> {
        let cuda = self.stream.enter()?;
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let kernel = usize::try_from(function.0).ok().and_then(|at| loaded.get(at));
        let kernel = kernel.ok_or_else(|| {
            let message = format!("not found among the {} kernels loaded on this GPU", loaded.len());
            DriverError::call(format!("launching kernel {}", function.0), message)
        })?;
        if geometry.shared > LARGE_SHARED {
            kernel.prefer_shared(cuda)?;
        }
        let [x, y, z] = geometry.cluster;
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.clusterDim = CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        let mut cluster = CUlaunchAttribute { id, pad: [0; 4], value };
        let config = CUlaunchConfig {
            gridDimX: geometry.grid[0],
            gridDimY: geometry.grid[1],
            gridDimZ: geometry.grid[2],
            blockDimX: geometry.block[0],
            blockDimY: geometry.block[1],
            blockDimZ: geometry.block[2],
            sharedMemBytes: geometry.shared,
            hStream: self.stream.raw(),
            attrs: &mut cluster,
            // GPUs before sm_90 refuse the attribute, whatever it says.
            numAttrs: c_uint::from(geometry.cluster != [1; 3]),
        };
        // SAFETY: the caller vouches for the arguments; the configuration and its attribute outlive the call.
        unsafe { cuda.launch(&config, kernel.handle.0, arguments.as_mut_ptr(), std::ptr::null_mut()) }
            .map_err(|failure| kernel.refused(geometry, failure))
    }

    fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> DriverResult<TensorMap> {
        let wrong = |message: String| DriverError::call("cuTensorMapEncodeTiled", message);
        if self.info.architecture.major < 9 {
            return Err(wrong(format!(
                "{} is {}, and only sm_90 and later have a tensor memory accelerator",
                self.info.name, self.info.architecture
            )));
        }
        shape.check(address).map_err(wrong)?;
        let mut map = CUtensorMap { opaque: [0; 16] };
        let element = match shape.element {
            2 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        };
        let swizzle = match shape.swizzle {
            Swizzle::None => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            Swizzle::Bytes32 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            Swizzle::Bytes64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            Swizzle::Bytes128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        };
        let steps = [1_u32; TensorMapShape::MOST_DIMENSIONS];
        // SAFETY: the check saw to as many extents, strides and tile extents as the rank asks for; nothing is read at
        // the address.
        unsafe {
            self.stream.enter()?.encode_tiled(
                &mut map,
                element,
                shape.extents.len() as c_uint,
                address as *mut c_void,
                shape.extents.as_ptr(),
                shape.strides.as_ptr(),
                shape.tile.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                // Tiles are whole lines of the L2 cache, and their neighbours are read soon.
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                // Elements outside are zeros.
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .map_err(|failure| wrong(format!("{}; got {shape:?} at {address:#x}", failure.message())))?;
        Ok(TensorMap(map.opaque))
    }

    fn mark(&self) -> DriverResult<Mark> {
        let spare = lock(&self.marks).spare.pop();
        let event = match spare {
            Some(event) => event,
            None => Arc::new(Event::new(self.stream.context(), CUevent_flags::CU_EVENT_DEFAULT)?),
        };
        event.record(&self.stream)?;
        let mut marks = lock(&self.marks);
        let number = marks.next;
        marks.next += 1;
        marks.live.insert(number, event);
        Ok(Mark(number))
    }

    fn seconds_between(&self, from: Mark, to: Mark) -> DriverResult<f64> {
        let event = |mark: Mark| {
            let found = lock(&self.marks).live.get(&mark.0).cloned();
            found.ok_or_else(|| {
                DriverError::call(format!("time of mark {}", mark.0), "not found: it was given back")
            })
        };
        let (from, to) = (event(from)?, event(to)?);
        from.wait()?;
        to.wait()?;
        Ok(f64::from(from.milliseconds_to(&to)?) / 1e3)
    }

    fn forget(&self, mark: Mark) {
        let mut marks = lock(&self.marks);
        if let Some(event) = marks.live.remove(&mark.0) {
            marks.spare.push(event);
        }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // Kernels in flight use modules and memory that go away next. Nothing is left to report their errors to.
        let _ = self.stream.synchronize();
    }
}
