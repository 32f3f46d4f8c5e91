//! What drivers answer when they refuse.

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
