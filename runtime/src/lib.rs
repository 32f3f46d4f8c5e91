//! Devices, memory, dtypes, shapes, tensors, random numbers and safetensors files of BigMac. No maths lives here.

pub mod rng;
