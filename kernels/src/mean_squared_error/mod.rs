//! Sum of squared differences, scaled: a mean, with the scale of a mean.

pub(crate) mod cuda;

use crate::elementwise::{infer_like_inputs, map};
use crate::numeric::{Float, Real};
use crate::operator::*;
use crate::rows::total;
use crate::sum::scalar;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = scale * sum((prediction - target)^2)`: inputs of one shape and float dtype, output `[1]` in the accumulator
/// dtype. The target gets no gradient. Saves both.
///
/// With `scale = 1 / elements` it is `torch.nn.MSELoss`; a caller who averages over several items gives each the scale
/// of the whole.
#[derive(Clone, Copy, Debug)]
pub struct MeanSquaredError {
    /// What the sum is multiplied with.
    pub scale: f64,
}

impl Operator for MeanSquaredError {
    fn name(&self) -> &'static str {
        "mean_squared_error"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let saved = [SavedSpec::Input(0), SavedSpec::Input(1)].into_iter().filter(|_| need.any());
        let mut inferred = infer_like_inputs::<2>(self.name(), inputs, weights, saved)?;
        if need.input(1) {
            return Err(Error::argument(self.name(), "the target gets no gradient; detach it"));
        }
        inferred.outputs[0] = OutputSpec::New(Spec::new(&[1], inputs[0].dtype.accumulator()));
        Ok(inferred)
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (prediction, target) = (call.inputs[0].contiguous(ctx)?, call.inputs[1].contiguous(ctx)?);
        let y = if ctx.is_gpu() {
            cuda::forward(ctx, self.name(), [&prediction, &target], self.scale)?
        } else {
            let sum = crate::for_float!(self.name(), prediction.dtype(), T => {
                let x = [prediction.as_slice::<T>()?, target.as_slice()?];
                Ok(total(ctx, x, |[p, t]| (p - t) * (p - t)))
            })?;
            scalar(ctx, self.scale * sum, prediction.dtype())?
        };
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let prediction = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let target = backward.saved(self.name(), 1)?.contiguous(ctx)?;
        let dy = backward.grad(self.name())?;
        let mut dx = Tensor::empty(ctx, prediction.shape(), prediction.dtype())?;
        if ctx.is_gpu() {
            cuda::backward(ctx, self.name(), [&prediction, &target], dy, self.scale, &mut dx)?;
        } else {
            crate::for_float!(self.name(), prediction.dtype(), T => {
                let factor = <T as Float>::Acc::of(2.0 * self.scale * crate::sum::value::<T>(dy)?.f64());
                let x = [prediction.as_slice::<T>()?, target.as_slice()?];
                map(ctx, x, dx.as_mut_slice()?, |[p, t]| (p - t) * factor);
                Ok(())
            })?;
        }
        Ok(smallvec![Some(dx), None])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4], &[2049], &[8, 1024], &[40_000]] {
            let target = random(shape, 5);
            let op = MeanSquaredError { scale: 0.25 };
            Check::new(&op).input(shape).input_values(target, shape, false).run().unwrap();
        }
    }

    #[test]
    fn agrees_with_values_worked_out_by_hand() {
        let ctx = Context::cpu(0, 1).unwrap();
        let tensor = |values: &[f32]| Tensor::from_slice(&ctx, values, &[values.len()]).unwrap();
        let (p, t) = (tensor(&[1.0, -2.0, 0.5]), tensor(&[0.0, 2.0, 0.5]));
        let y = MeanSquaredError { scale: 0.5 }.compute(&ctx, &[&p, &t], &[]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [8.5]);
    }

    #[test]
    fn a_gradient_of_the_target_is_refused() {
        let x = Spec::new(&[3], bigmac_runtime::DType::F32);
        let need = Need { inputs: &[true, true], weights: &[] };
        let error = MeanSquaredError { scale: 1.0 }.infer(&[x.clone(), x], &[], need).unwrap_err();
        assert!(error.to_string().contains("target"), "{error}");
    }
}
