//! Sum of all elements.

pub(crate) mod cuda;

use crate::check::float_tensor;
use crate::numeric::Float;
use crate::operator::*;
use crate::rows::total;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// `y = sum(x)`: input x of any shape and float dtype, output `[1]` in the accumulator dtype. Saves nothing but the
/// shape.
///
/// Blocks fixed by the length are added up in the accumulator type, so that the sum is the same on any number of
/// threads and any GPU.
#[derive(Clone, Copy, Debug)]
pub struct Sum;

impl Operator for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let dtype = expect_float(self.name(), [x])?;
        let saved = need.any().then_some(SavedSpec::Shape(0));
        Ok(Inferred::one(Spec::new(&[1], dtype.accumulator()), saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let x = call.inputs[0].contiguous(ctx)?;
        let y = if ctx.is_gpu() {
            cuda::forward(ctx, self.name(), &x)?
        } else {
            let sum = crate::for_float!(self.name(), x.dtype(), T => Ok(total(ctx, [x.as_slice::<T>()?], |[x]| x)))?;
            scalar(ctx, sum, x.dtype())?
        };
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let x = backward.saved(self.name(), 0)?;
        let dy = backward.grad(self.name())?;
        let mut dx = Tensor::empty(ctx, carried_shape(x), x.dtype())?;
        if ctx.is_gpu() {
            cuda::backward(ctx, self.name(), dy, &mut dx)?;
        } else {
            crate::for_float!(self.name(), x.dtype(), T => {
                let dy = value::<T>(dy)?;
                dx.as_mut_slice::<T>()?.fill(T::from_acc(dy));
                Ok(())
            })?;
        }
        Ok(smallvec![Some(dx)])
    }
}

/// A tensor `[1]` in the accumulator dtype of `dtype`.
pub(crate) fn scalar(ctx: &Context, value: f64, dtype: DType) -> Result<Tensor> {
    float_tensor(ctx, &[value], &[1], dtype.accumulator())
}

/// The one element of a tensor in the accumulator dtype of `T`.
pub(crate) fn value<T: Float>(scalar: &Tensor) -> Result<T::Acc> {
    match scalar.as_strided_slice::<T::Acc>()? {
        [value, ..] if scalar.len() == 1 => Ok(*value),
        _ => Err(Error::shape("gradient of a sum", scalar.shape(), "one element")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4], &[2049], &[8, 1024], &[40_000]] {
            Check::new(&Sum).input(shape).run().unwrap();
        }
    }

    #[test]
    fn a_long_sum_of_halves_is_kept_in_f32() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = float_tensor(&ctx, &vec![1.0; 100_000], &[100_000], DType::BF16).unwrap();
        let y = Sum.compute(&ctx, &[&x], &[]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [100_000.0]);
    }
}
