//! Product of two tensors, element by element.

use crate::elementwise::{infer_like_inputs, map};
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = a * b`: inputs a and b of one shape and float dtype, output like them. Saves b when a's gradient is wanted, then a
/// when b's is.
#[derive(Clone, Copy, Debug)]
pub struct Mul;

/// The input whose value the gradient of each input takes.
const OTHER: [usize; 2] = [1, 0];

impl Operator for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let saved = (0..2).filter(|&i| need.input(i)).map(|i| SavedSpec::Input(OTHER[i]));
        infer_like_inputs(self.name(), inputs, weights, 2, saved)
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let saved = (0..2).filter(|&i| need.input(i)).map(|i| inputs[OTHER[i]].clone());
        Ok(Forwarded::one(mul(ctx, inputs[0], inputs[1])?, saved))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dy = backward.grad(self.name())?;
        let mut saved = backward.saved.iter();
        let mut gradient = |i: usize| {
            if !backward.need.input(i) {
                return Ok(None);
            }
            let missing = || Error::argument(self.name(), "backward misses a saved tensor");
            mul(ctx, dy, saved.next().ok_or_else(missing)?).map(Some)
        };
        (0..2).map(&mut gradient).collect()
    }
}

fn mul(ctx: &Context, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous(ctx)?, b.contiguous(ctx)?);
    let mut y = Tensor::empty(ctx, a.shape(), a.dtype())?;
    crate::for_float!("mul", a.dtype(), T => {
        map(ctx, [a.as_slice::<T>()?, b.as_slice()?], y.as_mut_slice()?, |[a, b]| a * b);
        Ok(())
    })?;
    Ok(y)
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
