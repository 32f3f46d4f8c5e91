//! What drivers answer when they refuse, and what can go wrong with a GPU.

use crate::device::Device;
use std::time::Duration;

/// Why a driver's call failed: what was asked, and what the driver said.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DriverError {
    /// The device has no memory left for an allocation of that many bytes.
    #[error("no device memory for {0} more bytes")]
    OutOfMemory(usize),
    /// A kernel's source does not compile. The log is the compiler's.
    #[error("{file} does not compile for {target}:\n{log}")]
    Compile { file: String, target: String, log: String },
    /// The device was not done in time.
    #[error(
        "the GPU was not done after {0:?}, the limit of BIGMAC_GPU_TIMEOUT: a kernel may hang. This process can do nothing more on it; end \
         the process. If the work does take that long, raise the limit; otherwise CUDA_LAUNCH_BLOCKING=1 makes the launch that hangs \
         not return, and a debugger shows which it is"
    )]
    Timeout(Duration),
    /// Any other refusal: the driver's function, what it said, and what to do.
    #[error("{call}: {message}")]
    Call { call: String, message: String },
}

impl DriverError {
    /// A [`DriverError::Call`].
    pub fn call(call: impl Into<String>, message: impl Into<String>) -> DriverError {
        DriverError::Call { call: call.into(), message: message.into() }
    }
}

/// Result of a driver's call.
pub type DriverResult<T> = Result<T, DriverError>;

/// What can go wrong with a GPU.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GpuError {
    /// The driver refused `op`.
    #[error("{op} on {device}: {source}")]
    Driver { op: &'static str, device: Device, source: DriverError },
    /// A device that this build or this machine does not have.
    #[error("device {device}: {message}")]
    Device { device: Device, message: String },
    /// A kernel was given arguments or extents that it cannot be launched with.
    #[error("{kernel} of {file}: {message}")]
    Launch { kernel: &'static str, file: &'static str, message: String },
    /// An argument is too large for the type that the kernel takes.
    #[error("kernel argument of type {expected}: {given} does not fit; use smaller microbatches")]
    Argument { given: String, expected: &'static str },
}

/// Result with [`GpuError`].
pub type Result<T, E = GpuError> = std::result::Result<T, E>;
