//! Sigmoid linear unit.

use crate::elementwise::{infer_like_inputs, map};
use crate::numeric::Real;
use crate::operator::*;
use bigmac_runtime::{Context, Result, Spec, Tensor};

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

impl Operator for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        infer_like_inputs(self.name(), inputs, weights, 1, need.any().then_some(SavedSpec::Input(0)))
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let x = inputs[0].contiguous(ctx)?;
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        crate::for_float!(self.name(), x.dtype(), T => {
            map(ctx, [x.as_slice::<T>()?], y.as_mut_slice()?, |[x]| silu(x).0);
            Ok(())
        })?;
        Ok(Forwarded::one(y, need.any().then(|| inputs[0].clone())))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let x = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let mut dx = Tensor::empty(ctx, x.shape(), x.dtype())?;
        crate::for_float!(self.name(), x.dtype(), T => {
            let x = [x.as_slice::<T>()?, dy.as_slice()?];
            map(ctx, x, dx.as_mut_slice()?, |[x, dy]| dy * silu(x).1);
            Ok(())
        })?;
        Ok([Some(dx)].into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, to_f64};

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
        let y = Silu.forward(&ctx, &[&x], &[], Need::NONE).unwrap();
        let y = to_f64(&ctx, &y.outputs[0]).unwrap();
        let wanted = [0.0, -1.0 / (1.0 + 1f64.exp()), 0.0, 2.0 / (1.0 + (-2f64).exp()), 1e4];
        assert!(y.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }
}
