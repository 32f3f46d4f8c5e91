//! The models of BigMac: SigLIP encoder, Qwen3 decoder, MMDiT generator, and their composition.

pub mod init;
pub mod json;
pub mod layers;
