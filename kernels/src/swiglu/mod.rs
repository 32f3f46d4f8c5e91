//! The gated unit of SwiGLU feed-forward layers.

use crate::elementwise::{infer_like_inputs, map, map_to_two};
use crate::operator::*;
use crate::silu::silu;
use bigmac_runtime::{Context, Result, Spec, Tensor};

/// `y = silu(gate) * up`: inputs gate and up of one shape and float dtype, output like them. Saves the gate, and up when
/// the gate's gradient is wanted.
///
/// Source: Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202, eq. 5; `Qwen3MLP`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

impl Operator for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let saved = [SavedSpec::Input(0), SavedSpec::Input(1)].into_iter().take(count_saved(need));
        infer_like_inputs(self.name(), inputs, weights, 2, saved)
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let (gate, up) = (inputs[0].contiguous(ctx)?, inputs[1].contiguous(ctx)?);
        let mut y = Tensor::empty(ctx, gate.shape(), gate.dtype())?;
        crate::for_float!(self.name(), gate.dtype(), T => {
            let x = [gate.as_slice::<T>()?, up.as_slice()?];
            map(ctx, x, y.as_mut_slice()?, |[gate, up]| silu(gate).0 * up);
            Ok(())
        })?;
        Ok(Forwarded::one(y, inputs.iter().map(|&x| x.clone()).take(count_saved(need))))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let gate = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let empty = || Tensor::empty(ctx, gate.shape(), gate.dtype());
        if !backward.need.input(0) {
            let mut dup = empty()?;
            crate::for_float!(self.name(), gate.dtype(), T => {
                let x = [gate.as_slice::<T>()?, dy.as_slice()?];
                map(ctx, x, dup.as_mut_slice()?, |[gate, dy]| silu(gate).0 * dy);
                Ok(())
            })?;
            return Ok([None, Some(dup)].into_iter().collect());
        }
        let up = backward.saved(self.name(), 1)?.contiguous(ctx)?;
        let (mut dgate, mut dup) = (empty()?, empty()?);
        crate::for_float!(self.name(), gate.dtype(), T => {
            let x = [gate.as_slice::<T>()?, up.as_slice()?, dy.as_slice()?];
            map_to_two(ctx, x, dgate.as_mut_slice()?, dup.as_mut_slice()?, |[gate, up, dy]| {
                let (y, slope) = silu(gate);
                [dy * up * slope, dy * y]
            });
            Ok(())
        })?;
        Ok([Some(dgate), backward.need.input(1).then_some(dup)].into_iter().collect())
    }
}

/// How many of gate and up are saved.
fn count_saved(need: Need<'_>) -> usize {
    match (need.input(0), need.input(1)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
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
