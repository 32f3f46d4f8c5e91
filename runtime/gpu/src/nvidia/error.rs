//! Why a GPU can't be opened.

use super::architecture::Architecture;
use super::deadline::TIMEOUT;
use crate::driver::DriverError;
use crate::libraries::LibraryError;
use std::path::PathBuf;

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

/// Why a GPU can't be opened, or what GPUs there are can't be told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// A library is missing, or isn't what it should be.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The driver is older than what this program needs.
    #[error(
        "the NVIDIA driver is too old: {} is for CUDA {given}, wanted is {wanted} or later; install a newer driver",
        file.display()
    )]
    DriverTooOld {
        /// The driver's library.
        file: PathBuf,
        /// The latest CUDA version that it knows.
        given: Version,
        /// The earliest that would do.
        wanted: Version,
    },
    /// The driver sees no GPU.
    #[error(
        "the NVIDIA driver ({}, CUDA {version}) sees no GPU; `nvidia-smi` tells whether the system does, and CUDA_VISIBLE_DEVICES \
         ({}) says which are hidden from this process",
        file.display(),
        std::env::var("CUDA_VISIBLE_DEVICES").map_or_else(|_| "not set".into(), |value| format!("'{value}'"))
    )]
    NoDevice {
        /// The driver's library.
        file: PathBuf,
        /// The latest CUDA version that it knows.
        version: Version,
    },
    /// There are fewer GPUs than that.
    #[error("there is no GPU {ordinal}: this process sees {count}, numbered from 0")]
    NoSuchDevice {
        /// Which was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The GPU is older than the kernels need.
    #[error(
        "GPU {ordinal}, {name}, is {given}; wanted is {wanted} or later, which the kernels are written for"
    )]
    Unsupported {
        /// Which GPU.
        ordinal: usize,
        /// Its name.
        name: String,
        /// What it is.
        given: Architecture,
        /// The earliest that would do.
        wanted: Architecture,
    },
    /// The compiler doesn't know the GPU.
    #[error(
        "{} (NVRTC {version}) can't compile for {target}, only for {known}; install a newer NVRTC, or name its file in BIGMAC_LIBNVRTC",
        file.display()
    )]
    UnknownTarget {
        /// The compiler's library.
        file: PathBuf,
        /// Its version.
        version: Version,
        /// What it should compile for.
        target: String,
        /// What it can compile for.
        known: String,
    },
    /// The longest time for waits can't be read.
    #[error(
        "{TIMEOUT} is '{given}'; expected seconds, more than 0, such as 30, or unset it to wait without a limit"
    )]
    Timeout {
        /// What the variable says.
        given: String,
    },
    /// A call failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}
