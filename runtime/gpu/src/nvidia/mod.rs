//! NVIDIA GPUs: the driver and NVRTC, loaded at run time. Nothing of CUDA is needed to build this, and nothing but the
//! driver and NVRTC to run it.

mod architecture;
mod context;
mod cuda;
mod deadline;
mod driver;
mod error;
mod machine;
mod memory;
mod module;
mod nvrtc;
mod resources;
#[cfg(test)]
mod tests;

pub use architecture::Architecture;
pub use driver::Nvidia;
pub use error::{OpenError, TIMEOUT, Version};
pub use machine::{DeviceInfo, Machine};
pub use nvrtc::{Compiler, Image};
pub use resources::Resources;
