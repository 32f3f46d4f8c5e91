//! Runs kernels on the CPU, for tests: the host compiler makes a library of each source, in which every CUDA thread is
//! a fiber (`replay.cuh`). Device memory is this process's own.

use crate::cache::{Cache, Key};
use crate::driver::{Driver, DriverError, DriverResult, Function, Geometry, Mark, PendingDownload};
use crate::launch::{Compiled, Program, TensorMap, TensorMapShape, Text, signatures};
use crate::shared::{lock, variable};
use libloading::Library;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The variable that names the C++ compiler.
pub const COMPILER: &str = "BIGMAC_CXX";
/// Set to anything but 0, kernels are compiled with the address sanitizer, whose library the process must have loaded
/// first (`LD_PRELOAD=$(g++ -print-file-name=libasan.so)`).
pub const SANITIZE: &str = "BIGMAC_REPLAY_SANITIZE";

/// What the C++ compiler is called with.
const OPTIONS: &str = "-std=c++17 -O1 -g1 -shared -fPIC -fvisibility=hidden -fno-strict-aliasing -x c++";

/// The order in which blocks, and the threads of a block, take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First to last.
    Forward,
    /// Last to first.
    Reverse,
    /// At random at every turn, from that seed.
    Random(u32),
}

/// The struct of the same name in `replay.cuh`.
#[repr(C)]
struct LaunchRequest {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    cluster: u32,
    order: u32,
    seed: u32,
    message: *mut c_char,
    message_bytes: u32,
}

/// A copy that was done when it was queued, as all work here.
#[derive(Debug)]
struct Arrived(Vec<u8>);

impl PendingDownload for Arrived {
    fn wait(self: Box<Self>) -> DriverResult<Vec<u8>> {
        Ok(self.0)
    }
}

type Entry = unsafe extern "C" fn(*const LaunchRequest, *mut *mut c_void) -> c_int;

/// The replay of a GPU on the CPU.
#[derive(Debug)]
pub struct Replay {
    compiler: PathBuf,
    /// The version of the compiler and its options, for the cache.
    compiler_key: String,
    options: Vec<String>,
    cache: Cache,
    order: Order,
    launches: AtomicU32,
    libraries: Mutex<HashMap<PathBuf, Library>>,
    marks: Mutex<Vec<Option<Instant>>>,
}

/// Blocks of a cluster at most, on every GPU that has them.
const CLUSTER_MOST: u32 = 8;

/// The alignment that the CUDA driver gives at least.
const ALIGNMENT: usize = 256;

/// The C++ compiler and its version: [`COMPILER`], else `CXX`, else the first of the usual names that runs.
pub fn find_compiler() -> Result<(PathBuf, String), String> {
    let named = [COMPILER, "CXX"].into_iter().find_map(variable);
    let names: Vec<PathBuf> = match named {
        Some(name) => vec![name.into()],
        None => ["g++", "c++", "clang++"].map(PathBuf::from).into(),
    };
    for name in &names {
        if let Ok(out) = Command::new(name).arg("--version").output()
            && out.status.success()
        {
            let version = String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned();
            return Ok((name.clone(), version));
        }
    }
    Err(format!(
        "replaying kernels on the CPU needs a C++ compiler, and none of {names:?} runs; install g++, or name a compiler in {COMPILER}"
    ))
}

impl Replay {
    /// A replay with that order. It needs x86-64, for which fibers are written, and a C++ compiler.
    pub fn new(order: Order) -> DriverResult<Self> {
        if !cfg!(all(target_arch = "x86_64", unix)) {
            return Err(DriverError::call("replay", "kernels can be replayed on x86-64 Linux only"));
        }
        let (compiler, version) = find_compiler().map_err(|e| DriverError::call("replay", e))?;
        let mut options: Vec<String> = OPTIONS.split(' ').map(str::to_owned).collect();
        if variable(SANITIZE).is_some_and(|value| value != "0") {
            // Fibers have stacks of their own, which the stack checks of the sanitizer do not know.
            options.extend(["-fsanitize=address", "--param", "asan-stack=0"].map(str::to_owned));
        }
        let compiler_key = format!("{} {version} {}", compiler.display(), options.join(" "));
        Ok(Replay {
            compiler,
            compiler_key,
            options,
            cache: Cache::open()?,
            order,
            launches: AtomicU32::new(0),
            libraries: Mutex::default(),
            marks: Mutex::default(),
        })
    }

    fn build(&self, text: &Text, program: &Program<'_>, names: &[&str], to: &Path) -> DriverResult<()> {
        let folder = to.with_extension("src");
        let wrong =
            |e: std::io::Error| DriverError::call(format!("replay, {}", folder.display()), e.to_string());
        std::fs::create_dir_all(&folder).map_err(wrong)?;
        for (name, text) in &text.includes {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(&folder)).map_err(wrong)?;
            std::fs::write(path, text).map_err(wrong)?;
        }
        // A kernel is entered through a function that takes its arguments as the CUDA driver does.
        let mut source = format!("#line 1 \"{}\"\n{}\n", text.file, text.main);
        for name in names {
            source.push_str(&format!(
                "extern \"C\" __attribute__((visibility(\"default\"))) int replay_entry_{name}(const replay::Launch* ask, void** arguments) {{\n\
                 return replay::launch(*ask, {name}, arguments);\n}}\n"
            ));
        }
        let main = folder.join("replayed_kernel.cpp");
        std::fs::write(&main, source).map_err(wrong)?;
        let mut command = Command::new(&self.compiler);
        command.args(&self.options).arg("-I").arg(&folder);
        for (name, value) in program.knobs {
            command.arg(format!("-D{name}={value}"));
        }
        let out = command.arg(&main).arg("-o").arg(to).output().map_err(wrong)?;
        let log = String::from_utf8_lossy(&out.stderr).into_owned();
        if !out.status.success() {
            let file = text.file.clone();
            return Err(DriverError::Compile { file, target: "replay on the CPU".into(), log });
        }
        // Sources that remain do no harm.
        let _ = std::fs::remove_dir_all(&folder);
        Ok(())
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, ALIGNMENT).ok().filter(|l| l.size() > 0)
    }
}

impl Driver for Replay {
    fn name(&self) -> String {
        "replay of kernels on the CPU".into()
    }

    fn target(&self) -> &str {
        "replay"
    }

    fn processors(&self) -> usize {
        // Grids that follow the number of processors then have few blocks, each with several tiles to go through.
        3
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        Err(DriverError::call("memory", "a replay has no memory of its own"))
    }

    fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        let layout = Self::layout(bytes).ok_or(DriverError::OutOfMemory(bytes))?;
        // SAFETY: the layout has a size above 0. The system's allocator, not the program's: a sanitizer watches that
        // one.
        let address = unsafe { System.alloc(layout) };
        if address.is_null() {
            return Err(DriverError::OutOfMemory(bytes));
        }
        // NaN in every float type, so that reads before a write show.
        // SAFETY: the allocation is `bytes` long.
        unsafe { address.write_bytes(0xff, bytes) };
        Ok(address as u64)
    }

    fn free(&self, address: u64, bytes: usize) {
        if let Some(layout) = Self::layout(bytes) {
            // SAFETY: the address came from `allocate` with the same number of bytes, and is freed once, by its owner's
            // drop.
            unsafe { System.dealloc(address as *mut u8, layout) };
        }
    }

    fn trim(&self) -> DriverResult<()> {
        Ok(())
    }

    fn upload(&self, to: u64, from: &[u8]) -> DriverResult<()> {
        // SAFETY: the callers keep to live allocations with room for as much (see `Driver`).
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> DriverResult<()> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn download_later(&self, from: u64, bytes: usize) -> DriverResult<Box<dyn PendingDownload>> {
        let mut copy = vec![0; bytes];
        self.download(from, &mut copy)?;
        Ok(Box::new(Arrived(copy)))
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> DriverResult<()> {
        // SAFETY: as in `upload`; the two may overlap.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn fill(&self, to: u64, value: u8, bytes: usize) -> DriverResult<()> {
        // SAFETY: as in `upload`.
        unsafe { (to as *mut u8).write_bytes(value, bytes) };
        Ok(())
    }

    fn synchronize(&self) -> DriverResult<()> {
        Ok(())
    }

    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled> {
        let text = program.source.read()?;
        let signatures = signatures(&text)?;
        let names: Vec<&str> = signatures.iter().map(|s| s.name.as_str()).collect();
        let key = Key::new(&text, program, "replay", &self.compiler_key);
        let image = self.cache.get_or_make(key, "so", |to| self.build(&text, program, &names, to))?;
        Ok(Compiled { signatures, image })
    }

    fn load(&self, compiled: &Compiled, kernel: &str) -> DriverResult<Function> {
        let mut libraries = lock(&self.libraries);
        let wrong = |e: libloading::Error| {
            DriverError::call(format!("load {}", compiled.image.display()), e.to_string())
        };
        if !libraries.contains_key(&compiled.image) {
            // SAFETY: the library is what `build` made, whose start-up code only sets up its own variables.
            let library = unsafe { Library::new(&compiled.image) }.map_err(wrong)?;
            libraries.insert(compiled.image.clone(), library);
        }
        let library = &libraries[&compiled.image];
        // SAFETY: `build` gives every kernel an entry of this type. The library stays loaded as long as this replay.
        let entry =
            unsafe { library.get::<Entry>(format!("replay_entry_{kernel}").as_bytes()) }.map_err(wrong)?;
        Ok(Function(*entry as usize as u64))
    }

    unsafe fn launch(
        &self,
        function: Function,
        geometry: &Geometry,
        arguments: &mut [*mut c_void],
    ) -> DriverResult<()> {
        let [cluster, rest @ ..] = geometry.cluster;
        if rest != [1; 2]
            || !(1..=CLUSTER_MOST).contains(&cluster)
            || !geometry.grid[0].is_multiple_of(cluster)
        {
            let (grid, given) = (geometry.grid, geometry.cluster);
            let message = format!(
                "expected clusters of up to {CLUSTER_MOST} blocks along x that divide the grid, got {given:?} in a grid of {grid:?}"
            );
            return Err(DriverError::call("launch", message));
        }
        let mut message: [c_char; 512] = [0; 512];
        let (order, seed) = match self.order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed.wrapping_add(self.launches.fetch_add(1, Ordering::Relaxed))),
        };
        let request = LaunchRequest {
            grid: geometry.grid,
            block: geometry.block,
            shared: geometry.shared,
            cluster,
            order,
            seed,
            message: message.as_mut_ptr(),
            message_bytes: message.len() as u32,
        };
        // SAFETY: `load` made the number from an entry of this type, in a library that is still loaded; the arguments
        // are as the caller promises.
        let failed = unsafe {
            let entry: Entry = std::mem::transmute(function.0 as usize);
            entry(&request, arguments.as_mut_ptr())
        };
        if failed == 0 {
            return Ok(());
        }
        let text: Vec<u8> = message.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
        Err(DriverError::call("replay", String::from_utf8_lossy(&text)))
    }

    /// As `hopper_replay.cuh` reads it: address; rank, element size and swizzle; extents; strides; tile.
    fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> DriverResult<TensorMap> {
        let rank = shape.extents.len();
        shape.check(address).map_err(|message| DriverError::call("tensor_map", message))?;
        let mut words = [0; 16];
        words[0] = address;
        words[1] = rank as u64 | u64::from(shape.element) << 8 | (shape.swizzle as u64) << 16;
        words[2..2 + rank].copy_from_slice(&shape.extents);
        words[7..6 + rank].copy_from_slice(&shape.strides);
        for (word, &tile) in words[11..].iter_mut().zip(&shape.tile) {
            *word = u64::from(tile);
        }
        Ok(TensorMap(words))
    }

    fn mark(&self) -> DriverResult<Mark> {
        let mut marks = lock(&self.marks);
        let free = marks.iter().position(Option::is_none).unwrap_or(marks.len());
        if free == marks.len() {
            marks.push(None);
        }
        marks[free] = Some(Instant::now());
        Ok(Mark(free as u64))
    }

    fn seconds_between(&self, from: Mark, to: Mark) -> DriverResult<f64> {
        let marks = lock(&self.marks);
        let at = |mark: Mark| {
            let time = usize::try_from(mark.0).ok().and_then(|i| marks.get(i).copied().flatten());
            time.ok_or_else(|| DriverError::call("seconds_between", "the mark was given back"))
        };
        Ok(at(to)?.saturating_duration_since(at(from)?).as_secs_f64())
    }

    fn forget(&self, mark: Mark) {
        let mut marks = lock(&self.marks);
        if let Some(slot) = usize::try_from(mark.0).ok().and_then(|i| marks.get_mut(i)) {
            *slot = None;
        }
    }
}
