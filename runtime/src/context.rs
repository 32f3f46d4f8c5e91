//! The context of an operator: rank, device, stream, threads and memory, passed explicitly everywhere.

use crate::error::{Error, Result};
use crate::memory::{Memory, MemoryScope, scopes};
use crate::stream::Stream;
use crate::threads::Threads;
use bigmac_gpu::{Arg, Device, Gpu, Launch};

/// Rank, device, stream, thread pool and memory scope of a call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    rank: usize,
    stream: Stream,
    threads: Threads,
    memory: Memory,
    scope: MemoryScope,
}

impl Context {
    /// A context on the CPU for `rank`, with its own memory and `threads` threads. It starts in the workspace scope.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn cpu(rank: usize, threads: usize) -> Result<Self> {
        Context::on(rank, threads, None)
    }

    /// A context on a GPU for `rank`; what it does on the CPU uses `threads` threads. Ranks that share a GPU share its
    /// handle.
    pub fn on_gpu(rank: usize, threads: usize, gpu: &Gpu) -> Result<Self> {
        Context::on(rank, threads, Some(gpu))
    }

    /// A context on a GPU where there is one, else on the CPU.
    pub fn on(rank: usize, threads: usize, gpu: Option<&Gpu>) -> Result<Self> {
        let memory = Memory::new(rank);
        let scope = memory.scope(scopes::WORKSPACE);
        Ok(Context { rank, stream: Stream::of(gpu), threads: Threads::new(threads)?, memory, scope })
    }

    /// This context where it is on the CPU; else the same rank, threads and memory on the CPU, with allocations counted
    /// as copies of what lies on the device.
    pub fn host(&self) -> Context {
        if self.is_gpu() {
            Context { stream: Stream::of(None), ..self.in_scope(scopes::HOST) }
        } else {
            self.clone()
        }
    }

    /// The same context, with allocations counted under `scope`.
    pub fn in_scope(&self, scope: &str) -> Context {
        Context { scope: self.memory.scope(scope), ..self.clone() }
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.stream.device()
    }

    /// The GPU that operators run on; `None` on the CPU.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.stream.gpu()
    }

    /// True when operators run kernels of a GPU, real or replayed.
    pub fn is_gpu(&self) -> bool {
        self.gpu().is_some()
    }

    /// Queues a kernel after the work so far.
    ///
    /// # Errors
    /// As [`Gpu::launch`]; [`Error::Argument`] on the CPU.
    pub fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()> {
        let Some(gpu) = self.gpu() else {
            let message =
                format!("expected a context on a GPU for kernel {}, got one on the CPU", launch.kernel());
            return Err(Error::argument("launch", message));
        };
        Ok(gpu.launch(launch, args)?)
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The thread pool.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The rank's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The scope that allocations are counted under.
    pub fn scope(&self) -> &MemoryScope {
        &self.scope
    }
}
