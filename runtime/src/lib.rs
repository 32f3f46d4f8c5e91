//! Devices, memory, dtypes, shapes, tensors, random numbers and safetensors files of BigMac. No maths lives here.

mod available;
mod context;
mod copy;
mod device_tensor;
mod download;
mod dtype;
mod error;
pub mod fs;
mod layout;
pub mod memory;
pub mod open;
pub mod processor;
pub mod rng;
pub mod safetensors;
mod stream;
mod tensor;
mod threads;

pub use available::{Available, Limit, available};
pub use bigmac_gpu::Device;
pub use context::Context;
pub use copy::variants as copy_variants;
pub use download::Download;
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use layout::{Dims, Layout};
pub use memory::{Memory, MemoryScope};
pub use stream::Stream;
pub use tensor::{Spec, Tensor};
pub use threads::Threads;
