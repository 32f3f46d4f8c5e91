//! Arithmetic, weights and saved bytes of a part of a model: what times and memory are computed from.
//!
//! A part is a sum of few kinds of pieces: products with weights, attention, tensors that are kept for the backward.
//! Whole numbers stop at the largest there is instead of wrapping: sizes that no one has checked yet are computed with,
//! and what stopped there is refused by whoever compares it with a limit.

use std::iter::Sum;
use std::ops::{Add, Mul};

/// Bytes of a statistic of a norm or a softmax, which are kept in fp32.
pub(super) const STATISTIC: usize = 4;

/// What the modules of a model have in common, as far as their own work depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Tokens of a sequence; 0 without an LLM.
    pub sequence: usize,
    /// Width of the hidden states that the encoder makes and the generator reads: the LLM's where there is one.
    pub hidden_width: usize,
    /// Bytes of a number that is computed with.
    pub value_bytes: usize,
}

/// What one pass (a forward, input gradients, or weight gradients) does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations of products with weights that all rows share.
    pub dense: f64,
    /// Of grouped products with the weights of experts.
    pub expert: f64,
    /// Of scores and weighted sums in attention.
    pub attention: f64,
    /// Bytes of weights that products read, or of weight gradients that they read and write.
    pub weight_bytes: f64,
    /// Bytes that element-wise operators read and write.
    pub moved_bytes: f64,
}

impl Work {
    /// Floating-point operations together.
    pub fn flops(&self) -> f64 {
        self.dense + self.expert + self.attention
    }
}

impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        Work {
            dense: self.dense + other.dense,
            expert: self.expert + other.expert,
            attention: self.attention + other.attention,
            weight_bytes: self.weight_bytes + other.weight_bytes,
            moved_bytes: self.moved_bytes + other.moved_bytes,
        }
    }
}

impl Mul<f64> for Work {
    type Output = Work;

    fn mul(self, factor: f64) -> Work {
        Work {
            dense: self.dense * factor,
            expert: self.expert * factor,
            attention: self.attention * factor,
            weight_bytes: self.weight_bytes * factor,
            moved_bytes: self.moved_bytes * factor,
        }
    }
}

/// A part of a model on given rows: a layer, an end, a whole module.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Its parameters.
    pub parameters: u64,
    /// Those of them that one row passes: all but the experts that are not chosen, and all of an embedding's.
    pub active: u64,
    /// Those of them that get gradients when they learn: all but what nothing reads.
    pub trained: u64,
    /// The forward.
    pub forward: Work,
    /// Gradients of inputs.
    pub backward_input: Work,
    /// Gradients of weights.
    pub backward_weight: Work,
    /// Bytes that the forward saves for the backward.
    pub saved: u64,
    /// Floating-point operations of a forward and both gradients by their definition, without what fused attention
    /// computes again: what model FLOPs utilisation counts (Chowdhery et al., *PaLM*, arXiv 2204.02311, appendix B).
    pub model_flops: f64,
}

/// Bytes of an accumulated weight gradient (fp32), read and written.
const GRADIENT_BYTES: f64 = 8.0;

impl Part {
    /// Parameters that are not in a product: norms, embeddings.
    pub fn parameters(count: usize) -> Part {
        let count = count as u64;
        Part { parameters: count, active: count, trained: count, ..Part::default() }
    }

    /// `[rows, inputs]` times weights `[inputs, outputs]` of `bytes` each, with a bias where wanted.
    pub fn linear(rows: usize, inputs: usize, outputs: usize, bias: bool, bytes: usize) -> Part {
        let weights = inputs.saturating_mul(outputs);
        let pass = Work {
            dense: 2.0 * rows as f64 * weights as f64,
            weight_bytes: weights as f64 * bytes as f64,
            ..Work::default()
        };
        Part::products(pass, weights) + Part::parameters(if bias { outputs } else { 0 })
    }

    /// The same where nothing below the rows learns, as for pixels and latents: no gradient of them is computed.
    pub fn of_data(self) -> Part {
        let model_flops = self.model_flops - self.backward_input.flops();
        Part { backward_input: Work::default(), model_flops, ..self }
    }

    /// Parameters that are there and take no part.
    pub fn unused(self) -> Part {
        Part { parameters: self.parameters, active: self.active, ..Part::default() }
    }

    /// The same for rows that are shared among `experts`, `chosen` for each: a grouped product.
    pub fn experts(
        rows: usize,
        (experts, chosen): (usize, usize),
        inputs: usize,
        outputs: usize,
        bytes: usize,
    ) -> Part {
        let weights = inputs.saturating_mul(outputs);
        let sent = rows.saturating_mul(chosen);
        let touched = experts.min(sent).saturating_mul(weights);
        let pass = Work {
            expert: 2.0 * sent as f64 * weights as f64,
            weight_bytes: touched as f64 * bytes as f64,
            ..Work::default()
        };
        let part = Part::products(pass, touched);
        let (parameters, active) = (experts.saturating_mul(weights), chosen.saturating_mul(weights));
        let parameters = parameters as u64;
        Part { parameters, active: active as u64, trained: parameters, ..part }
    }

    fn products(pass: Work, written: usize) -> Part {
        let backward_weight = Work { weight_bytes: GRADIENT_BYTES * written as f64, ..pass };
        Part {
            parameters: written as u64,
            active: written as u64,
            trained: written as u64,
            forward: pass,
            backward_input: pass,
            backward_weight,
            saved: 0,
            model_flops: 3.0 * pass.flops(),
        }
    }

    /// Scores and weighted sums of `pairs` of a query and a key, all heads together `width` wide. The fused backward
    /// computes the scores again: five products for the forward's two (Dao, *FlashAttention-2*, arXiv 2307.08691).
    pub fn attention(pairs: f64, width: usize) -> Part {
        let flops = 4.0 * pairs * width as f64;
        let pass = |factor: f64| Work { attention: factor * flops, ..Work::default() };
        Part { forward: pass(1.0), backward_input: pass(2.5), model_flops: 3.0 * flops, ..Part::default() }
    }

    /// Tensors of `bytes` together that the backward reads. In the forward each is written and read once by
    /// element-wise operators; in the backward it is read, and its gradient written and read.
    pub fn kept(bytes: usize) -> Part {
        let moved = |factor: f64| Work { moved_bytes: factor * bytes as f64, ..Work::default() };
        Part { saved: bytes as u64, forward: moved(2.0), backward_input: moved(3.0), ..Part::default() }
    }

    /// This many such parts.
    pub fn times(self, count: usize) -> Part {
        let factor = count as f64;
        Part {
            parameters: self.parameters.saturating_mul(count as u64),
            active: self.active.saturating_mul(count as u64),
            trained: self.trained.saturating_mul(count as u64),
            forward: self.forward * factor,
            backward_input: self.backward_input * factor,
            backward_weight: self.backward_weight * factor,
            saved: self.saved.saturating_mul(count as u64),
            model_flops: self.model_flops * factor,
        }
    }
}

impl Add for Part {
    type Output = Part;

    fn add(self, other: Part) -> Part {
        Part {
            parameters: self.parameters.saturating_add(other.parameters),
            active: self.active.saturating_add(other.active),
            trained: self.trained.saturating_add(other.trained),
            forward: self.forward + other.forward,
            backward_input: self.backward_input + other.backward_input,
            backward_weight: self.backward_weight + other.backward_weight,
            saved: self.saved.saturating_add(other.saved),
            model_flops: self.model_flops + other.model_flops,
        }
    }
}

/// The product of sizes, or the largest number where it is larger.
pub(super) fn product<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// The sum of sizes, or the largest number where it is larger.
pub(super) fn sum<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.into_iter().fold(0, usize::saturating_add)
}

impl Sum for Part {
    fn sum<I: Iterator<Item = Part>>(parts: I) -> Part {
        parts.fold(Part::default(), Add::add)
    }
}
