//! Product of two tensors, element by element.

use crate::elementwise_cuda::source;
use crate::elementwise_operator::{Elementwise, Kernels, elementwise_operator};
use crate::numeric::Real;
use bigmac_gpu::Source;

pub(crate) static SOURCE: Source = source("mul/kernel.cu", include_str!("kernel.cu"));

/// `y = a * b`: inputs a and b of one shape and float dtype, output like them. Saves a when b's gradient is wanted, then b
/// when a's is.
#[derive(Clone, Copy, Debug)]
pub struct Mul;

elementwise_operator!(Mul, 2);

impl Elementwise<2> for Mul {
    const NAME: &'static str = "mul";
    const READS: [[bool; 2]; 2] = [[false, true], [true, false]];

    fn kernels(&self) -> Kernels {
        Kernels::new(&SOURCE, "mul_forward", "mul_backward")
    }

    #[inline(always)]
    fn value<A: Real>(&self, [a, b]: [A; 2]) -> A {
        a * b
    }

    #[inline(always)]
    fn gradients<A: Real>(&self, [a, b]: [A; 2], dy: A) -> [A; 2] {
        [dy * b, dy * a]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&Mul).input(shape).input(shape).run().unwrap();
        }
    }

    #[test]
    fn a_frozen_input_passes() {
        let constant = || random(&[3, 5], 9);
        Check::new(&Mul).input(&[3, 5]).input_values(constant(), &[3, 5], false).run().unwrap();
        Check::new(&Mul).input_values(constant(), &[3, 5], false).input(&[3, 5]).run().unwrap();
    }
}
