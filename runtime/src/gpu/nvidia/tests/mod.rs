//! The driver's side against a driver without a GPU, and NVRTC against itself.

mod compiler;
mod fake;
mod refusals;
mod work;
