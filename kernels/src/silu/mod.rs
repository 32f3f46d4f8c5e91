//! Sigmoid linear unit.

use crate::elementwise_cuda::source;
use crate::elementwise_operator::{Elementwise, Kernels, elementwise_operator};
use crate::numeric::Real;
use bigmac_gpu::Source;

static SOURCE: Source = source("silu/kernel.cu", include_str!("kernel.cu"));

/// `y = x sigmoid(x)`: input x of any shape and float dtype, output like x. Saves x.
///
/// Source: Elfwing, Uchibe and Doya, *Sigmoid-Weighted Linear Units*, arXiv 1702.03118; `torch.nn.SiLU`.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

/// `x sigmoid(x)` and its derivative.
#[inline(always)]
pub(crate) fn silu<A: Real>(x: A) -> (A, A) {
    let s = x.sigmoid();
    let y = x * s;
    (y, y.mul_add(A::ONE - s, s))
}

elementwise_operator!(Silu, 1);

impl Elementwise<1> for Silu {
    const NAME: &'static str = "silu";
    const READS: [[bool; 1]; 1] = [[true]];
    const KERNELS: Kernels = Kernels::new(&SOURCE, "silu_forward", "silu_backward");

    #[inline(always)]
    fn value<A: Real>(&self, [x]: [A; 1]) -> A {
        silu(x).0
    }

    #[inline(always)]
    fn gradients<A: Real>(&self, [x]: [A; 1], dy: A) -> [A; 1] {
        [dy * silu(x).1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, to_f64};
    use crate::operator::*;
    use bigmac_close::{absolute, assert_all_close};
    use bigmac_runtime::{Context, Tensor};

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&Silu).input(shape).run().unwrap();
        }
    }

    #[test]
    fn agrees_with_its_definition_far_out() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = Tensor::from_slice(&ctx, &[-1e4f32, -1.0, 0.0, 2.0, 1e4], &[5]).unwrap();
        let y = Silu.compute(&ctx, &[&x], &[]).unwrap();
        let y = to_f64(&ctx, &y).unwrap();
        let wanted = [0.0, -1.0 / (1.0 + 1f64.exp()), 0.0, 2.0 / (1.0 + (-2f64).exp()), 1e4];
        assert_all_close(&y, &wanted, absolute(1e-6));
    }
}
