//! GPUs: kernels compiled at run time, launches checked against their sources, and a replay of both on the CPU.
//!
//! A kernel is CUDA C++ in a `.cu` file that is part of the program ([`Source`]). [`Launch`] names it, its knobs and
//! its extents; [`Gpu::launch`] compiles it for the device when it is first used, checks the arguments against its
//! declaration, and queues it after the work so far. [`Device::Replay`] runs the same sources on the CPU, thread by
//! thread, so that kernels and all code around them are tested without a GPU.

pub mod cache;
mod device;
pub mod driver;
mod error;
mod gpu;
mod launch;
pub mod libraries;
pub mod nvidia;
pub mod replay;
mod shared;

pub use device::Device;
pub use driver::{Driver, DriverError, DriverResult, Mark, PendingDownload};
pub use error::{GpuError, Result};
pub use gpu::{Allocation, Gpu};
pub use launch::{
    Arg, Compiled, KERNEL_DIR, Knob, Knobs, Launch, Parameter, Program, Signature, Source, Swizzle,
    TensorMap, TensorMapShape, Variants, signatures,
};
pub use replay::Order;
