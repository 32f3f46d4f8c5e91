//! Adding a weight, such as a position embedding.

mod cpu;
pub(crate) mod cuda;

use crate::column_sums::{self, Terms};
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = x + w`: input x `[.., T, D]`, weight w `[T, D]` (or any shape that ends x's) of one float dtype, output like x.
/// Saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct AddWeight;

impl Operator for AddWeight {
    fn name(&self) -> &'static str {
        "add_weight"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        let ([x], [w]) = expect_counts(self.name(), inputs, weights)?;
        expect_float(self.name(), [x, w])?;
        if w.is_empty() || !x.shape.ends_with(&w.shape) {
            let wanted = "a weight of at least one element whose shape ends x's";
            return Err(Error::shape(self.name(), (&x.shape, &w.shape), wanted));
        }
        Ok(Inferred::one(x.clone(), []))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (x, w) = (call.inputs[0].contiguous(ctx)?, call.weights[0].contiguous(ctx)?);
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        if ctx.is_gpu() {
            cuda::forward(ctx, &x, &w, &mut y)?;
        } else {
            crate::for_float!(self.name(), x.dtype(), T => {
                cpu::forward::<T>(ctx, x.as_slice()?, w.as_slice()?, y.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, _ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        Ok(smallvec![Some(backward.grad(self.name())?.clone())])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let width = backward.weights[0].len();
        column_sums::into_grad(ctx, self.name(), &dy, width, Terms::Values, &mut dw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn every_shape_passes() {
        for (x, w) in [
            (&[5, 3][..], &[5, 3][..]),
            (&[2, 3, 7, 5], &[7, 5]),
            (&[9, 97], &[97]),
            (&[0, 3], &[3]),
            (&[40, 16, 8], &[16, 8]),
        ] {
            Check::new(&AddWeight).input(x).weight(w).run().unwrap();
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let spec = |shape: &[usize]| Spec::new(shape, bigmac_runtime::DType::F32);
        assert!(AddWeight.infer(&[spec(&[4, 6])], &[spec(&[2, 6])], Need::NONE).is_err());
    }
}
