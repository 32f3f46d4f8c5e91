//! The gated unit of SwiGLU feed-forward layers.

use crate::elementwise_cuda::source;
use crate::elementwise_operator::{Elementwise, Kernels, elementwise_operator};
use crate::numeric::Real;
use crate::silu::silu;
use bigmac_gpu::Source;

static SOURCE: Source = source("swiglu/kernel.cu", include_str!("kernel.cu"));

/// `y = silu(gate) * up`: inputs gate and up of one shape and float dtype, output like them. Saves the gate, and up
/// when the gate's gradient is wanted.
///
/// Source: Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202, eq. 5; `Qwen3MLP`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

elementwise_operator!(SwiGlu, 2);

impl Elementwise<2> for SwiGlu {
    const NAME: &'static str = "swiglu";
    const READS: [[bool; 2]; 2] = [[true, true], [true, false]];
    const KERNELS: Kernels = Kernels::new(&SOURCE, "swiglu_forward", "swiglu_backward");

    #[inline(always)]
    fn value<A: Real>(&self, [gate, up]: [A; 2]) -> A {
        silu(gate).0 * up
    }

    #[inline(always)]
    fn gradients<A: Real>(&self, [gate, up]: [A; 2], dy: A) -> [A; 2] {
        let (y, slope) = silu(gate);
        [dy * up * slope, dy * y]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&SwiGlu).input(shape).input(shape).run().unwrap();
        }
    }

    #[test]
    fn a_frozen_gate_or_up_passes() {
        let constant = || random(&[3, 5], 9);
        Check::new(&SwiGlu).input(&[3, 5]).input_values(constant(), &[3, 5], false).run().unwrap();
        Check::new(&SwiGlu).input_values(constant(), &[3, 5], false).input(&[3, 5]).run().unwrap();
    }
}
