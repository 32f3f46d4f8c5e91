//! A GPU in use: its driver, and the kernels loaded so far.

use crate::device::Device;
use crate::driver::{Driver, DriverError, DriverResult, Function, Geometry};
use crate::error::{GpuError, Result};
use crate::launch::{Arg, Knob, Launch, Parameter, Program, Source, TensorMap, TensorMapShape};
use crate::nvidia::Nvidia;
use crate::replay::{Order, Replay};
use crate::shared::{Turns, lock};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// How long a source in [`KERNEL_DIR`](super::KERNEL_DIR) is used before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A GPU, real or replayed, that is open. Cloning gives another handle; ranks that share a device share its handle,
/// since work is ordered among all that goes through one.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    driver: Box<dyn Driver>,
    launches: AtomicU64,
    loaded: RwLock<HashMap<Key, Arc<Loaded>>>,
    /// A program that several ranks need is compiled by one of them, while others compile other programs.
    compiling: Turns<ProgramKey>,
}

/// The identity of a program, which may have several kernels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProgramKey {
    file: &'static str,
    knobs: SmallVec<[(&'static str, Knob); 8]>,
}

/// The identity of a loaded kernel: its program and its name.
type Key = (ProgramKey, &'static str);

#[derive(Debug)]
struct Loaded {
    function: Function,
    parameters: Vec<Parameter>,
    /// The files that the source was read from, where it is not the program's own.
    watched: Option<Mutex<Watched>>,
}

#[derive(Debug)]
struct Watched {
    files: Vec<(PathBuf, Option<SystemTime>)>,
    looked: Instant,
    /// A change was seen; the kernel is out of date from then on.
    stale: bool,
}

impl Watched {
    fn new(source: &Source) -> Option<Mutex<Watched>> {
        let files = source.overriding_files()?;
        let files = files.into_iter().map(|path| (modified(&path), path)).map(|(time, path)| (path, time));
        Some(Mutex::new(Watched { files: files.collect(), looked: Instant::now(), stale: false }))
    }

    fn changed(&mut self) -> bool {
        if !self.stale && self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            self.stale = self.files.iter().any(|(path, time)| modified(path) != *time);
        }
        self.stale
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

impl Gpu {
    /// Opens a device: an NVIDIA GPU through its driver, or the replay.
    ///
    /// # Errors
    /// [`GpuError::Device`] when the device, or a library or compiler that it needs, was not found, with where it was
    /// looked for; also for [`Device::Cpu`], which is not a GPU.
    pub fn open(device: Device) -> Result<Gpu> {
        let wrong = |message: String| GpuError::Device { device, message };
        let over = |driver: Nvidia| Gpu::over(device, Box::new(driver));
        match device {
            Device::Cpu => Err(wrong("the CPU is not a GPU; use a context without one".into())),
            Device::Cuda(ordinal) => Nvidia::open(ordinal).map(over).map_err(|e| wrong(e.to_string())),
            Device::Replay => Gpu::replay(Order::Forward),
        }
    }

    /// The replay with blocks and threads in that order.
    pub fn replay(order: Order) -> Result<Gpu> {
        let wrong = |e: DriverError| GpuError::Device { device: Device::Replay, message: e.to_string() };
        Ok(Gpu::over(Device::Replay, Box::new(Replay::new(order).map_err(wrong)?)))
    }

    /// A device over any driver.
    pub fn over(device: Device, driver: Box<dyn Driver>) -> Gpu {
        let (launches, loaded, compiling) = (AtomicU64::new(0), RwLock::default(), Turns::default());
        Gpu(Arc::new(Inner { device, driver, launches, loaded, compiling }))
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// Its driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.0.driver
    }

    /// Kernels that were queued since it was opened.
    pub fn launches(&self) -> u64 {
        self.0.launches.load(Ordering::Relaxed)
    }

    /// True when both are handles on the same open device.
    pub fn same(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The error for a driver's, in the name of `op`.
    pub fn error(&self, op: &'static str, source: DriverError) -> GpuError {
        GpuError::Driver { op, device: self.0.device, source }
    }

    /// Describes what lies at `address` to the tensor memory accelerator.
    ///
    /// # Errors
    /// [`GpuError::Driver`] when the description breaks the hardware's rules.
    pub fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> Result<TensorMap> {
        self.0.driver.tensor_map(address, shape).map_err(|e| self.error("tensor_map", e))
    }

    /// Queues a kernel after the work so far.
    ///
    /// # Errors
    /// [`GpuError::Driver`] when the kernel cannot be compiled or started; [`GpuError::Launch`] when the arguments are
    /// not those that the kernel's declaration names, or the extents are larger than a launch may have.
    pub fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let wrong =
            |message: String| GpuError::Launch { kernel: launch.kernel, file: launch.source.file, message };
        let geometry = geometry(launch).map_err(wrong)?;
        let loaded = self.loaded(launch).map_err(|e| self.error("launch", e))?;
        let given = args.iter().map(Arg::parameter);
        if !given.clone().eq(loaded.parameters.iter().copied()) {
            let given: Vec<Parameter> = given.collect();
            return Err(wrong(format!("expected arguments {:?}, got {given:?}", loaded.parameters)));
        }
        let mut pointers: SmallVec<[*mut std::ffi::c_void; 24]> = args.iter().map(Arg::value).collect();
        // SAFETY: there is one pointer per parameter, to a value of its kind, as was just checked. Addresses come from
        // tensors that outlive the work (frees are queued after it); that a kernel stays inside them is for its author
        // to see to.
        unsafe { self.0.driver.launch(loaded.function, &geometry, &mut pointers) }
            .map_err(|e| self.error("launch", e))?;
        self.0.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn loaded(&self, launch: &Launch) -> DriverResult<Arc<Loaded>> {
        let key = (ProgramKey { file: launch.source.file, knobs: launch.knobs.clone() }, launch.kernel);
        if let Some(loaded) = self.find(&key) {
            return Ok(loaded);
        }
        self.0.compiling.alone(&key.0, || match self.find(&key) {
            // Another rank compiled it while this one waited.
            Some(loaded) => Ok(loaded),
            None => self.compile(launch, &key),
        })
    }

    /// The kernel, if it is loaded and its source has not changed since.
    fn find(&self, key: &Key) -> Option<Arc<Loaded>> {
        let current = |loaded: &Arc<Loaded>| match &loaded.watched {
            None => true,
            Some(watched) => !lock(watched).changed(),
        };
        let loaded = self.0.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(key).filter(|l| current(l)).cloned()
    }

    fn compile(&self, launch: &Launch, key: &Key) -> DriverResult<Arc<Loaded>> {
        // Before the text is read: a change in between is seen at the next look.
        let watched = Watched::new(launch.source);
        let compiled = self.0.driver.compile(&Program { source: launch.source, knobs: &launch.knobs })?;
        let Some(signature) = compiled.signatures.iter().find(|s| s.name == launch.kernel) else {
            let names: Vec<&str> = compiled.signatures.iter().map(|s| s.name.as_str()).collect();
            let call = format!("kernel {} of {}", launch.kernel, launch.source.file);
            return Err(DriverError::call(call, format!("not found among {names:?}")));
        };
        let parameters = signature.parameters.clone();
        let function = self.0.driver.load(&compiled, launch.kernel)?;
        let loaded = Arc::new(Loaded { function, parameters, watched });
        self.0.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), loaded.clone());
        Ok(loaded)
    }

    /// Memory of `bytes` bytes; memory that is cached is given back first when there is no other.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`] when there is still none; any other refusal of the driver.
    pub fn allocate(&self, bytes: usize) -> DriverResult<Allocation> {
        let driver = &self.0.driver;
        let bytes = bytes.max(1);
        let address = match driver.allocate(bytes) {
            Err(DriverError::OutOfMemory(_)) => {
                driver.trim()?;
                driver.allocate(bytes)?
            }
            other => other?,
        };
        Ok(Allocation { gpu: self.clone(), address, bytes })
    }
}

/// Memory on a device; given back when it is dropped, after all work so far.
#[derive(Debug)]
pub struct Allocation {
    gpu: Gpu,
    address: u64,
    bytes: usize,
}

impl Allocation {
    /// The GPU that it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Its first address.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.gpu.0.driver.free(self.address, self.bytes);
    }
}

/// The extents as a driver takes them, within what CUDA allows on every device.
fn geometry(launch: &Launch) -> Result<Geometry, String> {
    const GRID: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];
    let (grid, block) = (launch.grid, launch.block);
    if grid.iter().zip(GRID).any(|(&given, most)| given > most) {
        return Err(format!("expected a grid of up to {GRID:?} blocks, got {grid:?}"));
    }
    let threads = block.iter().try_fold(1usize, |n, &b| n.checked_mul(b)).unwrap_or(usize::MAX);
    if threads == 0 || threads > 1024 || !threads.is_multiple_of(32) {
        return Err(format!("expected blocks of a multiple of 32 threads up to 1024, got {block:?}"));
    }
    let shared = u32::try_from(launch.shared)
        .map_err(|_| format!("expected fewer bytes of shared memory than {}", launch.shared))?;
    let narrow = |extents: [usize; 3]| extents.map(|n| n as u32);
    Ok(Geometry { grid: narrow(grid), block: narrow(block), cluster: narrow(launch.cluster), shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_source_stays_changed_until_it_is_compiled_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel.cu");
        std::fs::write(&path, "one").unwrap();
        let files = vec![(path.clone(), modified(&path))];
        let mut watched = Watched { files, looked: Instant::now(), stale: false };
        std::thread::sleep(LOOK_AGAIN);
        assert!(!watched.changed());
        std::fs::write(&path, "two").unwrap();
        std::thread::sleep(LOOK_AGAIN);
        // Whoever compiles looks once more when no other thread is compiling.
        assert!(watched.changed() && watched.changed());
    }
}
