//! Gaussian error linear unit.

use crate::elementwise_cuda::source;
use crate::elementwise_operator::{Elementwise, Kernels, elementwise_operator};
use crate::numeric::Real;
use bigmac_gpu::Source;

static SOURCE: Source = source("gelu/kernel.cu", include_str!("kernel.cu"));

/// `y = x Phi(x)` with the normal distribution function `Phi`, or its approximation by tanh.
///
/// Input x of any shape and float dtype; output like x. Saves x.
///
/// Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv 1606.08415; `torch.nn.GELU`.
#[derive(Clone, Copy, Debug)]
pub struct Gelu {
    /// `y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` instead, as SigLIP's `gelu_pytorch_tanh`.
    pub tanh: bool,
}

/// 2 sqrt(2 / pi): `(1 + tanh(u)) / 2` is `sigmoid(2 u)`, which takes one exponential and cancels nowhere.
const TWICE_ROOT: f64 = 1.595_769_121_605_730_7;
const CUBIC: f64 = 0.044_715;

elementwise_operator!(Gelu, 1);

impl Elementwise<1> for Gelu {
    const NAME: &'static str = "gelu";
    const READS: [[bool; 1]; 1] = [[true]];
    const KERNELS: Kernels = Kernels::new(&SOURCE, "gelu_forward", "gelu_backward").choice("TANH", &[0, 1]);

    fn choice(&self) -> i64 {
        self.tanh.into()
    }

    #[inline(always)]
    fn value<A: Real>(&self, [x]: [A; 1]) -> A {
        if self.tanh {
            x * (A::of(TWICE_ROOT) * x * (A::of(CUBIC) * x).mul_add(x, A::ONE)).sigmoid()
        } else {
            x * x.normal().0
        }
    }

    #[inline(always)]
    fn gradients<A: Real>(&self, [x]: [A; 1], dy: A) -> [A; 1] {
        if self.tanh {
            let square = x * x;
            let s = (A::of(TWICE_ROOT) * x * A::of(CUBIC).mul_add(square, A::ONE)).sigmoid();
            let slope = A::of(TWICE_ROOT) * A::of(3.0 * CUBIC).mul_add(square, A::ONE);
            [dy * (x * s * (A::ONE - s)).mul_add(slope, s)]
        } else {
            let (distribution, density) = x.normal();
            [dy * x.mul_add(density, distribution)]
        }
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
    fn both_forms_pass() {
        for tanh in [false, true] {
            for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
                Check::new(&Gelu { tanh }).input(shape).run().unwrap();
            }
            let wide: Vec<f64> = (0..1001).map(|i| (f64::from(i) - 500.0) / 40.0).collect();
            Check::new(&Gelu { tanh }).input_values(wide, &[7, 143], true).run().unwrap();
        }
    }

    #[test]
    fn agrees_with_its_definition() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = Tensor::from_slice(&ctx, &[-3f64, -0.5, 0.0, 1.0, 200.0, -200.0], &[6]).unwrap();
        // In double precision, by erfc and by tanh of the C library.
        for (tanh, wanted) in [
            (false, [-0.004_049_694_094_9, -0.154_268_769_363_0, 0.0, 0.841_344_746_068_5, 200.0, 0.0]),
            (true, [-0.003_637_392_081_8, -0.154_285_990_174_9, 0.0, 0.841_191_990_608_3, 200.0, 0.0]),
        ] {
            let y = Gelu { tanh }.compute(&ctx, &[&x], &[]).unwrap();
            let y = to_f64(&ctx, &y).unwrap();
            assert_all_close(&y, &wanted, absolute(1e-9));
        }
    }
}
