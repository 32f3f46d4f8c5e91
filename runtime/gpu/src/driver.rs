//! What every GPU, real or replayed, can do.

pub use crate::error::{DriverError, DriverResult};
use crate::launch::{Compiled, Program, TensorMap, TensorMapShape};
use std::ffi::c_void;
use std::fmt::Debug;

/// A kernel that is loaded and can be launched. The number has a meaning for its driver alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub u64);

/// Extents of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; all ones where there are none.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// A GPU, real or replayed. Work is done in the order of the calls, from whichever thread they come: a device has one
/// stream, which all ranks on it share, so that what one hands to another needs no further waiting.
///
/// Addresses are those of device memory. Every call that takes one trusts that it is in a live allocation of this
/// driver, with room for what is read or written: [`Gpu`](super::Gpu) and the tensors over it see to that.
pub trait Driver: Send + Sync + Debug {
    /// The device's name, for messages.
    fn name(&self) -> String;

    /// The target that kernels are compiled for: `sm_90a`, or `replay`.
    fn target(&self) -> &str;

    /// Multiprocessors.
    fn processors(&self) -> usize;

    /// Bytes of memory: free and total.
    fn memory(&self) -> DriverResult<(usize, usize)>;

    /// `bytes` bytes, more than 0, aligned to 256.
    fn allocate(&self, bytes: usize) -> DriverResult<u64>;

    /// Gives back an allocation, after all work so far.
    fn free(&self, address: u64, bytes: usize);

    /// Gives unused memory back to the system, and waits until that is done.
    fn trim(&self) -> DriverResult<()>;

    /// Copies to the device. `from` may be reused as soon as the call returns; the copy itself happens after the work
    /// so far.
    fn upload(&self, to: u64, from: &[u8]) -> DriverResult<()>;

    /// Copies from the device, after the work so far, and waits for it.
    fn download(&self, from: u64, to: &mut [u8]) -> DriverResult<()>;

    /// Queues a copy of `bytes` bytes from the device, after the work so far, and returns at once. What was there at
    /// that point arrives, whatever is written over it or freed later.
    fn download_later(&self, from: u64, bytes: usize) -> DriverResult<Box<dyn PendingDownload>>;

    /// Copies within the device, after the work so far.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> DriverResult<()>;

    /// Sets every byte to `value`, after the work so far.
    fn fill(&self, to: u64, value: u8, bytes: usize) -> DriverResult<()>;

    /// Waits until all work so far is done; errors of kernels that ran before are returned here.
    fn synchronize(&self) -> DriverResult<()>;

    /// Compiles a program, or finds it compiled in the cache on disk, and reads the parameters of its kernels.
    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled>;

    /// Loads a compiled program and returns the kernel of that name.
    fn load(&self, compiled: &Compiled, kernel: &str) -> DriverResult<Function>;

    /// Queues a kernel after the work so far.
    ///
    /// # Safety
    /// `arguments` holds one pointer per parameter of the kernel, to a value of its type; pointers among the values are
    /// good for what the kernel does with them.
    unsafe fn launch(
        &self,
        function: Function,
        geometry: &Geometry,
        arguments: &mut [*mut c_void],
    ) -> DriverResult<()>;

    /// Describes a tensor at `address` to the tensor memory accelerator.
    fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> DriverResult<TensorMap>;

    /// A mark after the work so far.
    fn mark(&self) -> DriverResult<Mark>;

    /// Seconds of device time between two marks; waits for the later one.
    fn seconds_between(&self, from: Mark, to: Mark) -> DriverResult<f64>;

    /// Gives a mark back.
    fn forget(&self, mark: Mark);
}

/// A copy from the device that was queued. It may be dropped at any time: then the bytes are lost, and nothing waits.
pub trait PendingDownload: Send + Debug {
    /// Waits until the copy is done and returns its bytes; errors of kernels that ran before it are returned here.
    fn wait(self: Box<Self>) -> DriverResult<Vec<u8>>;
}

/// A moment in a device's work. The number has a meaning for its driver alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u64);
