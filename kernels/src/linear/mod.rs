//! Linear layer.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::numeric::Float;
use crate::operator::*;
use crate::product::{rounded, widened};
use bigmac_runtime::{Context, Error, Result, Spec};

/// `y = x w^T (+ b)`, as `torch.nn.Linear`: input x `[.., in]`; weights w `[out, in]` and, with `bias`, b `[out]`;
/// output `[.., out]`. Sums are kept in the accumulator dtype and rounded once.
///
/// Backward: `dx = dy w`, `dw = dy^T x`, `db = sum of dy over rows`. Saves x, and only when the gradient of w is
/// wanted.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Whether there is a weight 1, added to every row.
    pub bias: bool,
}

impl Linear {
    const NAME: &'static str = "linear";
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        if self.bias {
            expect_counts::<1, 2>(Self::NAME, inputs, weights)?;
        } else {
            expect_counts::<1, 1>(Self::NAME, inputs, weights)?;
        }
        let dtype = expect_float(Self::NAME, inputs.iter().chain(weights))?;
        let (x, w) = (&inputs[0].shape, &weights[0].shape);
        let (&[out, inner], Some(&last)) = (w.as_slice(), x.last()) else {
            return Err(Error::shape(Self::NAME, (x, w), "an input [.., in] and a weight [out, in]"));
        };
        if last != inner {
            return Err(Error::shape(Self::NAME, (x, w), format!("an input whose last extent is {inner}")));
        }
        if let Some(b) = weights.get(1)
            && b.shape.as_slice() != [out]
        {
            return Err(Error::shape(Self::NAME, (w, &b.shape), format!("a bias [{out}]")));
        }
        let mut shape = x.clone();
        shape[x.len() - 1] = out;
        Ok(Inferred::one(Spec { shape, dtype }, need.weight(0).then_some(SavedSpec::Input(0))))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (x, w, b) = (call.inputs[0], call.weights[0], call.weights.get(1).copied());
        let (out, inner) = (w.shape()[0], w.shape()[1]);
        let mut shape = x.shape().to_vec();
        shape[x.shape().len() - 1] = out;
        if ctx.is_gpu() {
            return Ok(Forwarded::one(cuda::forward(ctx, x, w, b, &shape)?));
        }
        let dtype = x.dtype();
        let (x, w, b) = (widened(ctx, x)?, widened(ctx, w)?, b.map(|b| widened(ctx, b)).transpose()?);
        let y = crate::for_float!(Self::NAME, dtype, T => rounded::<T>(ctx, &shape, |y| {
            let b = b.as_ref().map(|b| b.as_slice()).transpose()?;
            cpu::forward(ctx, x.as_slice()?, w.as_slice()?, b, (out, inner), y)
        }))?;
        Ok(Forwarded::one(y))
    }

    fn flops(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Flops {
        let rows = inputs[0].len() as f64 / weights[0].shape[1].max(1) as f64;
        Flops::weighted(2.0 * rows * weights[0].len() as f64, need)
    }

    fn defers_weight(&self) -> bool {
        true
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        if !backward.need.input(0) {
            return Ok(smallvec![None]);
        }
        let given = backward.grad(Self::NAME)?;
        let (out, inner) = (backward.weights[0].shape()[0], backward.weights[0].shape()[1]);
        let mut shape = given.shape().to_vec();
        shape[given.shape().len() - 1] = inner;
        if ctx.is_gpu() {
            let dx = cuda::backward_input(ctx, given, backward.weights[0], &shape)?;
            return Ok(smallvec![Some(dx)]);
        }
        let (dy, w) = (widened(ctx, given)?, widened(ctx, backward.weights[0])?);
        let dx = crate::for_float!(Self::NAME, given.dtype(), T => rounded::<T>(ctx, &shape, |dx| {
            cpu::backward_input(ctx, dy.as_slice()?, w.as_slice()?, (out, inner), dx)
        }))?;
        Ok(smallvec![Some(dx)])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        let add = dw.accumulate;
        let given = backward.grad(Self::NAME)?;
        if ctx.is_gpu() && dw.weight < 1 + usize::from(self.bias) {
            return match dw.weight {
                0 => cuda::backward_weight(ctx, backward.saved(Self::NAME, 0)?, given, &mut dw),
                _ => cuda::backward_bias(ctx, given, &mut dw),
            };
        }
        crate::for_float!(Self::NAME, given.dtype(), T => {
            let weight = dw.weight;
            let to = dw.slice::<<T as Float>::Acc>()?;
            match weight {
                0 => {
                    let (x, dy) = (widened(ctx, backward.saved(Self::NAME, 0)?)?, widened(ctx, given)?);
                    let w = backward.weights[0].shape();
                    cpu::backward_weight(ctx, x.as_slice()?, dy.as_slice()?, (w[0], w[1]), add, to)
                }
                1 if self.bias => {
                    cpu::backward_bias::<T>(ctx, given.contiguous(ctx)?.as_slice()?, add, to);
                    Ok(())
                }
                _ => Err(Error::argument(Self::NAME, format!("expected weight 0, or 1 with a bias, got {weight}"))),
            }
        })
    }
}
