//! SigLIP encoder, Qwen3 decoder, MMDiT generator and their composition
