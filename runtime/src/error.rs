//! The error of runtime, kernels, autograd and models: what was expected, what it got, what to do.

use crate::dtype::DType;
use bigmac_gpu::{Device, GpuError};
use std::path::{Path, PathBuf};

/// Result with the runtime's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong below the level of schedules. `op` is the operator or method, `given` what it got and
/// `wanted` what it takes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// An operator was given tensors whose shapes do not fit it or each other.
    #[error("{op}: expected {wanted}, got shapes {given}")]
    Shape { op: &'static str, given: String, wanted: String },
    /// An operator was given a dtype that it does not take.
    #[error("{op}: expected dtype {wanted}, got {given}; cast the tensor first")]
    DType { op: &'static str, given: DType, wanted: String },
    /// An operator that needs contiguous data was given a strided view.
    #[error(
        "{op}: expected contiguous data, got a view of shape {shape:?} and strides {strides:?}; call contiguous() first"
    )]
    NotContiguous { op: &'static str, shape: Vec<usize>, strides: Vec<usize> },
    /// Any other argument that an operator does not take. The message says what it got and what it expected.
    #[error("{op}: {message}")]
    Argument { op: &'static str, message: String },
    /// A write to a storage that another tensor can see.
    #[error(
        "{op}: {owners} tensors share the storage, and only an unshared one can be written to; copy the tensor first"
    )]
    Shared { op: &'static str, owners: usize },
    /// Values were asked of a tensor that has only a shape.
    #[error("{op}: this tensor was made for planning and has no values; run the computation on a device")]
    NoValues { op: &'static str },
    /// A memory scope would go over its budget. Counts are in bytes.
    #[error(
        "memory scope '{scope}' of rank {rank}: {asked} more bytes with {current} in use exceed the budget of {allowed}; \
         raise the budget or choose a schedule with a smaller peak"
    )]
    Budget { scope: String, rank: usize, asked: usize, current: usize, allowed: usize },
    /// The device has no more memory. `in_use` is what the rank holds, scope by scope.
    #[error(
        "no memory for {bytes} more bytes in scope '{scope}' of rank {rank}, which holds {in_use}; use smaller microbatches or fewer of them in \
         flight"
    )]
    OutOfMemory { bytes: usize, scope: String, rank: usize, in_use: String },
    /// Values on a device were asked for as if they were on the CPU.
    #[error(
        "{op}: expected a tensor on the CPU, got one on {device}; download it with to_cpu() or to_vec() first"
    )]
    NotOnHost { op: &'static str, device: Device },
    /// A tensor is not where the operation runs.
    #[error("{op}: expected a tensor on {wanted}, got one on {given}; move it with to_device() first")]
    NotOnDevice { op: &'static str, given: Device, wanted: Device },
    /// A GPU refused, or there is none.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// An operator without a backward is where a gradient has to pass.
    #[error(
        "{op} has no backward, and a gradient is needed through it; freeze what comes before it, or detach its inputs"
    )]
    NoBackward { op: &'static str },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file was read, and does not hold what it should. The message says what is wrong and what to do.
    #[error("{}: {message}", path.display())]
    Format { path: PathBuf, message: String },
}

impl Error {
    /// A [`Error::Shape`] over anything that prints.
    pub fn shape(op: &'static str, given: impl std::fmt::Debug, wanted: impl Into<String>) -> Self {
        Error::Shape { op, given: format!("{given:?}"), wanted: wanted.into() }
    }

    /// A [`Error::Argument`].
    pub fn argument(op: &'static str, message: impl Into<String>) -> Self {
        Error::Argument { op, message: message.into() }
    }

    /// A [`Error::Io`] about `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), source }
    }

    /// A [`Error::Format`] about `path`.
    pub fn format(path: &Path, message: impl Into<String>) -> Self {
        Error::Format { path: path.to_owned(), message: message.into() }
    }
}
