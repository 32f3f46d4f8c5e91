//! Multiplication with a number.

use crate::elementwise::{infer_like_inputs, map};
use crate::numeric::{Float, Real};
use crate::operator::*;
use bigmac_runtime::{Context, Result, Spec, Tensor};

/// `y = factor * x`: input x of any shape and float dtype, output like x. Saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The number.
    pub factor: f64,
}

impl Scale {
    fn apply(&self, ctx: &Context, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous(ctx)?;
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        crate::for_float!(self.name(), x.dtype(), T => {
            let factor = <T as Float>::Acc::of(self.factor);
            map(ctx, [x.as_slice::<T>()?], y.as_mut_slice()?, |[x]| x * factor);
            Ok(())
        })?;
        Ok(y)
    }
}

impl Operator for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        infer_like_inputs(self.name(), inputs, weights, 1, [])
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        _need: Need<'_>,
    ) -> Result<Forwarded> {
        Ok(Forwarded::one(self.apply(ctx, inputs[0])?, []))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        Ok([Some(self.apply(ctx, backward.grad(self.name())?)?)].into_iter().collect())
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
