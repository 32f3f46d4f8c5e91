//! What an operator runs in: rank, device, stream, threads and memory, passed explicitly everywhere.

use crate::device::Device;
use crate::error::Result;
use crate::memory::{Memory, MemoryScope, scopes};
use crate::stream::Stream;
use crate::threads::Threads;

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
    /// When the threads can't be had.
    pub fn cpu(rank: usize, threads: usize) -> Result<Self> {
        let memory = Memory::new(rank);
        let scope = memory.scope(scopes::WORKSPACE);
        Ok(Context {
            rank,
            stream: Stream::new(Device::Cpu)?,
            threads: Threads::new(threads)?,
            memory,
            scope,
        })
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
