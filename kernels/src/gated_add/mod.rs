//! The gated residual sum of diffusion transformers.

mod cpu;
pub(crate) mod cuda;

use crate::column_sums::{self, Terms};
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `x + gate * y` with one gate per column: inputs x `[T, D]`, gate `[D]` and y `[T, D]` of one float dtype, output
/// like x. Saves the gate when y's gradient is wanted, then y when the gate's is.
///
/// Source: Peebles and Xie, *Scalable Diffusion Models with Transformers*, arXiv 2212.09748, section 3.2 (adaLN-Zero).
#[derive(Clone, Copy, Debug)]
pub struct GatedAdd;

impl Operator for GatedAdd {
    fn name(&self) -> &'static str {
        "gated_add"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x, gate, y], []) = expect_counts(self.name(), inputs, weights)?;
        expect_float(self.name(), inputs)?;
        if x.shape != y.shape
            || gate.shape.len() != 1
            || gate.shape.last() != x.shape.last()
            || gate.is_empty()
        {
            let wanted = "x [T, D], gate [D] and y [T, D], D at least 1";
            return Err(Error::shape(self.name(), (&x.shape, &gate.shape, &y.shape), wanted));
        }
        let gate = need.input(2).then_some(SavedSpec::Input(1));
        let y = need.input(1).then_some(SavedSpec::Input(2));
        Ok(Inferred::one(x.clone(), gate.into_iter().chain(y)))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (x, gate, y) = (
            call.inputs[0].contiguous(ctx)?,
            call.inputs[1].contiguous(ctx)?,
            call.inputs[2].contiguous(ctx)?,
        );
        let mut z = Tensor::empty(ctx, x.shape(), x.dtype())?;
        if ctx.is_gpu() {
            cuda::gated_add(ctx, self.name(), Some(&x), (&gate, &y), &mut z)?;
        } else {
            crate::for_float!(self.name(), x.dtype(), T => {
                let (x, gate, y) = (x.as_slice()?, gate.as_slice()?, y.as_slice()?);
                cpu::forward::<T>(ctx, x, gate, y, z.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(Forwarded::one(z))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let need = backward.need;
        let given = backward.grad(self.name())?;
        let dz = if need.input(1) || need.input(2) { given.contiguous(ctx)? } else { given.clone() };
        let dx = need.input(0).then(|| given.clone());
        let dgate = if need.input(1) { Some(self.gate_gradient(ctx, backward, &dz)?) } else { None };
        let dy = if need.input(2) { Some(self.gradient(ctx, backward, &dz)?) } else { None };
        Ok(smallvec![dx, dgate, dy])
    }
}

impl GatedAdd {
    /// The gradient of y.
    fn gradient(&self, ctx: &Context, backward: &Backward<'_>, dz: &Tensor) -> Result<Tensor> {
        let gate = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let mut dy = Tensor::empty(ctx, dz.shape(), dz.dtype())?;
        if ctx.is_gpu() {
            cuda::gated_add(ctx, self.name(), None, (&gate, dz), &mut dy)?;
        } else {
            crate::for_float!(self.name(), dz.dtype(), T => {
                cpu::gradient::<T>(ctx, gate.as_slice()?, dz.as_slice()?, dy.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(dy)
    }

    /// The gradient of the gate.
    fn gate_gradient(&self, ctx: &Context, backward: &Backward<'_>, dz: &Tensor) -> Result<Tensor> {
        let y = backward.saved(self.name(), usize::from(backward.need.input(2)))?.contiguous(ctx)?;
        let width = y.shape().last().copied().unwrap_or(0);
        column_sums::rounded(ctx, self.name(), dz, width, Terms::Products(&y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn every_width_passes() {
        for [t, d] in [[5, 1], [7, 3], [33, 96], [4, 97], [0, 4], [32, 256], [33, 264], [129, 64], [31, 257]]
        {
            Check::new(&GatedAdd).input(&[t, d]).input(&[d]).input(&[t, d]).run().unwrap();
        }
    }

    #[test]
    fn any_of_the_inputs_may_be_frozen() {
        for wanted in 1..7 {
            let wants = |i: u32| wanted >> i & 1 == 1;
            Check::new(&GatedAdd)
                .input_values(random(&[5, 9], 1), &[5, 9], wants(0))
                .input_values(random(&[9], 2), &[9], wants(1))
                .input_values(random(&[5, 9], 3), &[5, 9], wants(2))
                .run()
                .unwrap();
        }
    }
}
