//! What drivers answer when they refuse, and what can go wrong with a GPU.

use crate::device::Device;
use std::time::Duration;

/// Why a driver's call failed: what was asked, and what the driver said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no memory left for an allocation.
    #[error("no device memory for {0} more bytes")]
    OutOfMemory(usize),
    /// A kernel's source didn't compile.
    #[error("{file} doesn't compile for {target}:\n{log}")]
    Compile {
        /// The source file, as far as it is known by name.
        file: String,
        /// What it was compiled for.
        target: String,
        /// The compiler's log, with lines of the file.
        log: String,
    },
    /// The device wasn't done in time.
    #[error(
        "the GPU was not done after {0:?}, the limit of BIGMAC_GPU_TIMEOUT: a kernel may hang. This process can do nothing more on it; end \
         the process. If the work does take that long, raise the limit; otherwise CUDA_LAUNCH_BLOCKING=1 makes the launch that hangs \
         not return, and a debugger shows which it is"
    )]
    Timeout(Duration),
    /// Any other refusal.
    #[error("{call}: {message}")]
    Call {
        /// The driver's function.
        call: String,
        /// What it said, and what to do.
        message: String,
    },
}

/// Result of a driver's call.
pub type DriverResult<T> = Result<T, DriverError>;

/// What can go wrong with a GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The driver refused.
    #[error("{op} on {device}: {source}")]
    Driver {
        /// What was to be done.
        op: &'static str,
        /// The device.
        device: Device,
        /// What the driver said.
        source: DriverError,
    },
    /// A device that this build or this machine doesn't have.
    #[error("device {device}: {message}")]
    Device {
        /// The device asked for.
        device: Device,
        /// Why it can't be used.
        message: String,
    },
    /// A kernel was given arguments or extents that it can't be launched with.
    #[error("{kernel} of {file}: {message}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Its source.
        file: &'static str,
        /// What was given and what is wanted.
        message: String,
    },
    /// An argument is too large for the type that the kernel takes.
    #[error("kernel argument of type {expected}: {given} does not fit; use smaller microbatches")]
    Argument {
        /// The value.
        given: String,
        /// The type.
        expected: &'static str,
    },
}

/// Result with [`GpuError`].
pub type Result<T, E = GpuError> = std::result::Result<T, E>;
