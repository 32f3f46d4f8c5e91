//! The error of runtime, kernels, autograd and models: what was given, what was wanted, what to do.

use crate::dtype::DType;
use bigmac_gpu::{Device, GpuError};
use std::path::{Path, PathBuf};

/// Result with the runtime's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong below the level of schedules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator was given tensors whose shapes don't fit it or each other.
    #[error("{op}: got shapes {given}, wanted {wanted}")]
    Shape {
        /// The operator.
        op: &'static str,
        /// The shapes it was given.
        given: String,
        /// What it takes.
        wanted: String,
    },
    /// An operator was given a dtype it doesn't take.
    #[error("{op}: got dtype {given}, wanted {wanted}; cast the tensor first")]
    DType {
        /// The operator.
        op: &'static str,
        /// The dtype it was given.
        given: DType,
        /// What it takes.
        wanted: String,
    },
    /// An operator that needs contiguous data was given a strided view.
    #[error(
        "{op}: got a view of shape {shape:?} and strides {strides:?}, wanted contiguous data; call contiguous() first"
    )]
    NotContiguous {
        /// The operator.
        op: &'static str,
        /// Shape of the view.
        shape: Vec<usize>,
        /// Strides of the view, in elements.
        strides: Vec<usize>,
    },
    /// Any other argument an operator doesn't take.
    #[error("{op}: {message}")]
    Argument {
        /// The operator.
        op: &'static str,
        /// What was given and what is wanted.
        message: String,
    },
    /// A write to a storage that another tensor can see.
    #[error(
        "{op}: the tensor's storage is shared by {owners} tensors, and only an unshared one can be written to; copy it first"
    )]
    Shared {
        /// Who wanted to write.
        op: &'static str,
        /// How many tensors hold the storage.
        owners: usize,
    },
    /// Values were asked of a tensor that has only a shape.
    #[error(
        "{op}: this tensor has a shape and no values (it was made for planning); run the computation on a device"
    )]
    NoValues {
        /// Who wanted the values.
        op: &'static str,
    },
    /// A memory scope would go over its budget.
    #[error(
        "memory scope '{scope}' of rank {rank}: asked for {asked} bytes with {current} in use, allowed are {allowed}; \
         raise the budget or choose a schedule with a smaller peak"
    )]
    Budget {
        /// The scope's name.
        scope: String,
        /// The rank that asked.
        rank: usize,
        /// Bytes asked for.
        asked: usize,
        /// Bytes in use.
        current: usize,
        /// The budget in bytes.
        allowed: usize,
    },
    /// The device has no more memory.
    #[error(
        "no memory for {bytes} more bytes in scope '{scope}' of rank {rank}, which holds {in_use}; use smaller microbatches or fewer of them in \
         flight"
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// The scope that asked.
        scope: String,
        /// The rank that asked.
        rank: usize,
        /// What the rank holds, scope by scope.
        in_use: String,
    },
    /// Values on a device were asked for as if they were the CPU's.
    #[error(
        "{op}: the tensor lies on {device}, and its values were asked for on the CPU; download it with to_cpu() or to_vec() first"
    )]
    NotOnHost {
        /// Who wanted the values.
        op: &'static str,
        /// Where they are.
        device: Device,
    },
    /// A tensor doesn't lie where the operation runs.
    #[error(
        "{op}: the tensor lies on {given}, and the operation runs on {wanted}; move it with to_device() first"
    )]
    NotOnDevice {
        /// The operation.
        op: &'static str,
        /// Where the tensor lies.
        given: Device,
        /// Where it is wanted.
        wanted: Device,
    },
    /// A GPU refused, or there is none.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// An operator without a backward stands where a gradient has to pass.
    #[error(
        "{op} has no backward, and a gradient is wanted through it; freeze what lies below it, or detach its inputs"
    )]
    NoBackward {
        /// The operator.
        op: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read, and what it holds is not what was wanted.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
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
