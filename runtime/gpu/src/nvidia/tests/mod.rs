//! The driver's side against a driver without a GPU, and NVRTC against itself.

mod compiler;
mod damaged;
mod deadline;
mod fake;
mod memory;
mod refusals;
mod work;
