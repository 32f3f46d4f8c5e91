//! The models of BigMac: SigLIP encoder, Qwen3 decoder, MMDiT generator, and their composition.

#[cfg(test)]
mod check_stages;
pub mod generate;
pub mod init;
pub mod json;
pub mod layers;
pub mod llava;
pub mod mmdit;
pub mod names;
pub mod qwen3;
pub mod siglip;
pub mod stage;
pub mod weights;
