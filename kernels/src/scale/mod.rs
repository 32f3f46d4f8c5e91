//! Multiplication with a number.

use crate::elementwise_cuda::source;
use crate::elementwise_operator::{Elementwise, Kernels, elementwise_operator};
use crate::numeric::Real;
use bigmac_gpu::{Arg, Source};

static SOURCE: Source = source("scale/kernel.cu", include_str!("kernel.cu"));

/// `y = factor * x`: input x of any shape and float dtype, output like x. Saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The number.
    pub factor: f64,
}

elementwise_operator!(Scale, 1);

impl Elementwise<1> for Scale {
    const NAME: &'static str = "scale";
    const READS: [[bool; 1]; 1] = [[false]];
    const KERNELS: Kernels = Kernels::new(&SOURCE, "scale_forward", "scale_backward");

    fn parameter(&self) -> Option<Arg> {
        Some(Arg::f32(self.factor))
    }

    #[inline(always)]
    fn value<A: Real>(&self, [x]: [A; 1]) -> A {
        A::of(self.factor) * x
    }

    #[inline(always)]
    fn gradients<A: Real>(&self, _: [A; 1], dy: A) -> [A; 1] {
        [A::of(self.factor) * dy]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&Scale { factor: -0.75 }).input(shape).run().unwrap();
        }
    }
}
