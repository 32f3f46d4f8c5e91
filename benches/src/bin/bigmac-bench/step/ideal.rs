//! The fewest bytes that a step could move with kernels that fuse what can be fused.

use super::sizes::{Module, Sizes};
use bigmac::sizes::{Frame, Generator, Llm};
use bigmac_runtime::DType;

/// Numbers per token that a part of a network reads and writes, forward and backward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub forward: usize,
    pub backward: usize,
}

impl Traffic {
    fn all(self) -> usize {
        self.forward + self.backward
    }
}

/// A layer of the LLM of width D, with queries Q, keys and values K, MLP F, per token.
///
/// Forward: norm (read D, write D); one product to queries, keys and values (D, Q + 2 K); norm of heads and rotation
/// as one kernel (2 Q + 2 K); attention (Q + 2 K, Q); output projection that adds the residual (Q + D, D); norm (2
/// D); one product to gate and up followed by SwiGLU (D, 3 F, gate and up being kept); down projection that adds the
/// residual (F + D, D).
///
/// Backward: down (D to F for its input; F + D for its weight); SwiGLU (3 F, 2 F); gate and up (2 F to D; D + 2 F);
/// norm with the residual's gradient added (3 D, D); output projection (D to Q; Q + D); attention (the output and its
/// gradient for their products, then q, k, v and the gradient, to k, v and, in fp32 as two numbers, q); heads' norm
/// and rotation (gradient and, where there is a norm, what was normed, to a gradient); queries, keys, values (Q + 2 K
/// to D; D + Q + 2 K); norm (3 D, D).
pub fn llm_layer(l: &Llm) -> Traffic {
    let (d, q, k, f) = (l.width, l.heads * l.head_dim, l.kv_heads * l.head_dim, l.mlp);
    let qkv = q + 2 * k;
    let forward =
        2 * d + (d + qkv) + 2 * (q + k) + (qkv + q) + (q + 2 * d) + 2 * d + (d + 3 * f) + (f + 2 * d);
    let heads = if l.qk_norm { 3 } else { 2 };
    let mlp = (2 * d + 2 * f) + 5 * f + (4 * f + 2 * d);
    let attention = 2 * q + (qkv + q) + 2 * k + 2 * q;
    let backward = mlp + 4 * d + (2 * d + 2 * q) + attention + heads * (q + k) + 2 * (d + qkv) + 4 * d;
    Traffic { forward, backward }
}

/// What is before the LLM's first layer and after its last: rows of the embedding, the last norm, the hidden states
/// that the loss reads without ever writing logits, and their gradients.
fn llm_ends(l: &Llm) -> Traffic {
    Traffic {
        forward: 2 * l.width + 2 * l.width + l.width,
        backward: 2 * l.width + 4 * l.width + 2 * l.width,
    }
}

/// A block of the generator of width D per token of a stream that is written by it.
///
/// Forward: modulated norm (2 D); queries, keys and values (D, 3 D); their norm and rotation (4 D); attention (3 D,
/// D); output projection with gate and residual (2 D; the projection, which the gate's gradient needs, and the sum, 2
/// D); modulated norm (2 D); the MLP's first product with its activation (D, 8 D); its second with gate and residual
/// (5 D, 2 D).
///
/// Backward: gate (2 D, D); second product (D and the 4 D before the activation, to 4 D; 5 D for its weight); first
/// (4 D to D; 5 D); norm with the residual's gradient (3 D, D); gate (2 D, D); output projection (2 D; 2 D);
/// attention (10 D, as the LLM's); norm and rotation (4 D, 2 D); queries, keys and values (3 D to D; 4 D); norm (3 D,
/// D).
fn generator_block(width: usize) -> Traffic {
    Traffic { forward: 36 * width, backward: 66 * width }
}

/// The same of the text in the last block, of which keys and values are read and nothing is written.
fn generator_last_text(width: usize) -> Traffic {
    Traffic { forward: (2 + 3 + 2 + 2) * width, backward: (4 + 3 + 6 + 4) * width }
}

/// Numbers of all tokens of a drawing.
fn drawing(g: &Generator, text_width: usize) -> usize {
    let (width, blocks) = (g.width(), g.layers - 1);
    let both = g.tokens() * blocks + g.latents;
    let latents = (g.channels + width) + (2 * width + width + g.channels) + 2 * g.channels;
    let latents_back = (g.channels + width) + (2 * g.channels + 2 * width + 4 * width) + 3 * g.channels;
    let text = (2 * text_width) + (text_width + width);
    let text_back = 2 * (text_width + width) + 2 * text_width;
    both * generator_block(width).all()
        + g.text * (generator_last_text(width).all() + text + text_back)
        + g.latents * (latents + latents_back)
}

/// Bytes of a step: the numbers of every token in the dtype of activations; for each microbatch, or drawing, the
/// weights of products for the forward and for the gradients of inputs, and an fp32 gradient of each that is written,
/// or added to where it is not the first; then the norm of all gradients, and AdamW with moments and masters in fp32.
/// Statistics of norms, rotary tables, tokens, one row's modulation and weights of norms are left out.
pub fn bytes(sizes: &Sizes, dtype: DType) -> anyhow::Result<f64> {
    let value = dtype.size();
    let frame = Frame { value_bytes: value, ..sizes.model.frame() };
    let (numbers, passes, part) = match sizes.module()? {
        Module::Llm(llm) => {
            let token = llm.layers * llm_layer(llm).all() + llm_ends(llm).all();
            (sizes.step_tokens() * token, sizes.microbatches, llm.whole(frame))
        }
        Module::Generator(generator) => {
            let drawings = sizes.sequences() * sizes.microbatches;
            (drawings * drawing(generator, frame.hidden_width), drawings, generator.item(frame))
        }
    };
    let read = (part.forward.weight_bytes + part.backward_input.weight_bytes) * passes as f64;
    // The plan's gradients are read and written.
    let gradients = part.backward_weight.weight_bytes * (passes as f64 - 0.5);
    let weights = if dtype == DType::F32 { 8 } else { 8 + value };
    let update = 4 + (4 + 16 + weights);
    Ok((numbers * value) as f64 + read + gradients + (part.trained * update as u64) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac::plan::{Description, Model};

    /// Worked out by hand for Qwen3-1.7B: 17 kernels of 47 D and 37 of 98.5 D as they run one by one, and these where
    /// they are fused.
    #[test]
    fn a_layer_of_qwen3_moves_31_and_67_vectors_of_its_width() {
        let llm = Model::load("qwen3-1.7b").unwrap().llm.unwrap();
        let Traffic { forward, backward } = llm_layer(&llm);
        assert_eq!((forward, 2 * backward), (31 * 2048, 135 * 2048));
    }
}
