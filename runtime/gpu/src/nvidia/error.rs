//! Why a GPU cannot be opened.

use super::architecture::Architecture;
use crate::driver::DriverError;
use crate::libraries::LibraryError;
use std::path::PathBuf;

/// The variable that says how many seconds a wait for a GPU may take. Without it waits last as long as the work.
pub const TIMEOUT: &str = "BIGMAC_GPU_TIMEOUT";

/// A version of CUDA, as a driver or a compiler gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a GPU cannot be opened, or the GPUs cannot be listed. `file` is that of the library.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    /// A library is missing, or is not what it should be.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The driver is older than what this program needs.
    #[error(
        "the NVIDIA driver is too old: expected CUDA {wanted} or later, {} has {given}; install a newer driver",
        file.display()
    )]
    DriverTooOld { file: PathBuf, given: Version, wanted: Version },
    /// The driver sees no GPU.
    #[error(
        "the NVIDIA driver ({}, CUDA {version}) sees no GPU; `nvidia-smi` tells whether the system does, and CUDA_VISIBLE_DEVICES \
         ({}) says which are hidden from this process",
        file.display(),
        std::env::var("CUDA_VISIBLE_DEVICES").map_or_else(|_| "not set".into(), |value| format!("'{value}'"))
    )]
    NoDevice { file: PathBuf, version: Version },
    /// There are fewer GPUs than that.
    #[error("GPU {ordinal} was not found: this process sees {count}, numbered from 0")]
    NoSuchDevice { ordinal: usize, count: usize },
    /// The GPU is older than the kernels need.
    #[error("GPU {ordinal}, {name}, is {given}; the kernels need {wanted} or later")]
    Unsupported { ordinal: usize, name: String, given: Architecture, wanted: Architecture },
    /// The compiler does not know the GPU.
    #[error(
        "{} (NVRTC {version}) cannot compile for {target}, only for {known}; install a newer NVRTC, or name its file in BIGMAC_LIBNVRTC",
        file.display()
    )]
    UnknownTarget { file: PathBuf, version: Version, target: String, known: String },
    /// The variable with the longest time for waits is not a time.
    #[error(
        "{TIMEOUT}: expected seconds above 0, such as 30, got '{given}'; correct it, or unset it to wait without a limit"
    )]
    Timeout { given: String },
    /// A call failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}
