//! A replayed GPU that writes down what is launched on it and who waits for it, by thread: a rank's name is that of its
//! thread.

use bigmac_gpu::Compiled;
use bigmac_gpu::driver::{Driver, Function, Geometry};
use bigmac_gpu::replay::Replay;
use bigmac_gpu::{DriverResult, Gpu, Mark, Order, PendingDownload, Program, TensorMap, TensorMapShape};
use bigmac_runtime::Device;
use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::ffi::c_void;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel that ends a step.
const UPDATE: &str = "adamw_step";

/// What a thread did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It launched a kernel of that name.
    Launch(String),
    /// It launched the optimizer, and weights or moments are others now, or are not.
    Update {
        /// Whether they are.
        changed: bool,
    },
    /// It waited for everything before the event of that number of its own.
    Wait {
        /// The driver's call.
        call: &'static str,
        /// The number.
        until: usize,
    },
}

/// A number that a kernel is given as NaN.
#[derive(Clone, Copy, Debug)]
pub struct Poison {
    /// The kernel whose first argument's first element is overwritten at its first launch in a step.
    pub kernel: &'static str,
    /// The step, from 0.
    pub step: usize,
    /// The thread.
    pub thread: &'static str,
}

/// What the threads did, in order.
#[derive(Debug, Default)]
pub struct Log(Mutex<BTreeMap<String, Vec<Event>>>);

impl Log {
    /// By thread.
    pub fn events(&self) -> BTreeMap<String, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<Event>) -> R) -> R {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(all.entry(thread()).or_default())
    }

    fn add(&self, event: Event) {
        self.with(|events| events.push(event));
    }

    /// A wait for everything so far.
    fn wait(&self, call: &'static str) {
        self.with(|events| events.push(Event::Wait { call, until: events.len() }));
    }
}

fn thread() -> String {
    std::thread::current().name().unwrap_or("unnamed").to_owned()
}

/// The steps that events have completed: runs of updates.
pub fn steps(events: &[Event]) -> usize {
    let ends = events.iter().filter(|event| !matches!(event, Event::Wait { .. }));
    let updates: Vec<bool> = ends.map(|event| matches!(event, Event::Update { .. })).collect();
    updates.iter().enumerate().filter(|&(i, &is)| is && updates.get(i + 1) != Some(&true)).count()
}

#[derive(Debug)]
struct Watched {
    inner: Replay,
    log: Arc<Log>,
    poison: Option<Poison>,
    kernels: Mutex<HashMap<u64, String>>,
    /// Where marks lie among the events of their thread.
    marks: Mutex<HashMap<u64, usize>>,
}

/// A replayed GPU, and what will have happened on it.
///
/// # Errors
/// Without a C++ compiler.
pub fn watched(poison: Option<Poison>) -> anyhow::Result<(Gpu, Arc<Log>)> {
    let log = Arc::new(Log::default());
    let (kernels, marks) = (Mutex::default(), Mutex::default());
    let inner = Replay::new(Order::Forward)?;
    let driver = Watched { inner, log: log.clone(), poison, kernels, marks };
    Ok((Gpu::over(Device::Replay, Box::new(driver)), log))
}

impl Watched {
    fn name(&self, function: Function) -> String {
        let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.get(&function.0).cloned().unwrap_or_default()
    }

    /// True for the launch whose argument is to be NaN.
    fn poisons(&self, kernel: &str) -> bool {
        let Some(poison) = self.poison.filter(|p| p.kernel == kernel && p.thread == thread()) else {
            return false;
        };
        self.log.with(|events| {
            let begun = events.iter().rposition(|event| matches!(event, Event::Update { .. }));
            let step = &events[begun.map_or(0, |end| end + 1)..];
            let first = !step.contains(&Event::Launch(kernel.to_owned()));
            first && steps(events) == poison.step
        })
    }
}

/// A kernel's argument number `i`.
///
/// # Safety
/// `arguments` has one, of that type.
unsafe fn argument<A: Copy>(arguments: &[*mut c_void], i: usize) -> A {
    // SAFETY: the caller vouches for it.
    unsafe { arguments[i].cast::<A>().read_unaligned() }
}

/// A hash of the weights and moments that the optimizer's launch updates.
///
/// # Safety
/// The arguments are those of [`UPDATE`] over so many chunks of F32 weights, on a replay.
unsafe fn digest(arguments: &[*mut c_void], chunks: usize) -> u64 {
    /// As the kernel declares it.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Chunk {
        weight: u64,
        offset: i64,
        length: i32,
        decays: i32,
    }
    let mut hasher = DefaultHasher::new();
    // SAFETY: a replay's device memory is this process's own; the table has that many chunks, and each lies in live
    // allocations.
    unsafe {
        let table: u64 = argument(arguments, 0);
        for chunk in std::slice::from_raw_parts(table as *const Chunk, chunks) {
            let len = 4 * chunk.length as usize;
            hasher.write(std::slice::from_raw_parts(chunk.weight as *const u8, len));
            for moments in [2, 3] {
                let first = argument::<u64>(arguments, moments) + 4 * chunk.offset as u64;
                hasher.write(std::slice::from_raw_parts(first as *const u8, len));
            }
        }
    }
    hasher.finish()
}

/// A download that has not been waited for yet.
#[derive(Debug)]
struct Pending {
    inner: Box<dyn PendingDownload>,
    log: Arc<Log>,
    until: usize,
}

impl PendingDownload for Pending {
    fn wait(self: Box<Self>) -> DriverResult<Vec<u8>> {
        self.log.add(Event::Wait { call: "pending download", until: self.until });
        self.inner.wait()
    }
}

impl Driver for Watched {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn target(&self) -> &str {
        self.inner.target()
    }

    fn processors(&self) -> usize {
        self.inner.processors()
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        self.inner.memory()
    }

    fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        self.inner.allocate(bytes)
    }

    fn free(&self, address: u64, bytes: usize) {
        self.inner.free(address, bytes);
    }

    fn trim(&self) -> DriverResult<()> {
        self.log.wait("trim");
        self.inner.trim()
    }

    fn upload(&self, to: u64, from: &[u8]) -> DriverResult<()> {
        self.inner.upload(to, from)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> DriverResult<()> {
        self.log.wait("download");
        self.inner.download(from, to)
    }

    fn download_later(&self, from: u64, bytes: usize) -> DriverResult<Box<dyn PendingDownload>> {
        let inner = self.inner.download_later(from, bytes)?;
        let until = self.log.with(|events| events.len());
        Ok(Box::new(Pending { inner, log: self.log.clone(), until }))
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> DriverResult<()> {
        self.inner.copy(to, from, bytes)
    }

    fn fill(&self, to: u64, value: u8, bytes: usize) -> DriverResult<()> {
        self.inner.fill(to, value, bytes)
    }

    fn synchronize(&self) -> DriverResult<()> {
        self.log.wait("synchronize");
        self.inner.synchronize()
    }

    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled> {
        self.inner.compile(program)
    }

    fn load(&self, compiled: &Compiled, kernel: &str) -> DriverResult<Function> {
        let function = self.inner.load(compiled, kernel)?;
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.insert(function.0, kernel.to_owned());
        Ok(function)
    }

    unsafe fn launch(
        &self,
        function: Function,
        geometry: &Geometry,
        arguments: &mut [*mut c_void],
    ) -> DriverResult<()> {
        let kernel = self.name(function);
        if self.poisons(&kernel) {
            // SAFETY: the first argument of the kernels that tests name is an array of floats, in this process's
            // memory.
            unsafe { argument::<*mut f32>(arguments, 0).write(f32::NAN) };
        }
        let updates = kernel == UPDATE;
        let chunks = geometry.grid[0] as usize;
        // SAFETY: the caller vouches for the arguments; tests train in F32.
        let before = if updates { unsafe { digest(arguments, chunks) } } else { 0 };
        // SAFETY: as above.
        unsafe { self.inner.launch(function, geometry, arguments)? };
        // SAFETY: as above.
        let after = if updates { unsafe { digest(arguments, chunks) } } else { 0 };
        let event = if updates { Event::Update { changed: before != after } } else { Event::Launch(kernel) };
        self.log.add(event);
        Ok(())
    }

    fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> DriverResult<TensorMap> {
        self.inner.tensor_map(address, shape)
    }

    fn mark(&self) -> DriverResult<Mark> {
        let mark = self.inner.mark()?;
        let at = self.log.with(|events| events.len());
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).insert(mark.0, at);
        Ok(mark)
    }

    fn seconds_between(&self, from: Mark, to: Mark) -> DriverResult<f64> {
        let until = self.marks.lock().unwrap_or_else(PoisonError::into_inner).get(&to.0).copied();
        self.log.add(Event::Wait { call: "seconds between marks", until: until.unwrap_or(usize::MAX) });
        self.inner.seconds_between(from, to)
    }

    fn forget(&self, mark: Mark) {
        self.inner.forget(mark);
    }
}
