//! Rotary position embedding.

mod cache;
mod cpu;
pub(crate) mod cuda;
mod tables;

pub use cache::RopeCache;
pub use tables::rope_tables;

use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// Turns pairs of elements of each head by its token's angles: `(a, b) -> (a cos - b sin, b cos + a sin)`.
///
/// Inputs x `[T, H, D]`, cos and sin `[T, D / 2]` in the accumulator dtype of x's, which get no gradient (see
/// [`rope_tables`]); output like x. Saves cos and sin: the backward turns the gradient back.
///
/// Source: Su et al., *RoFormer*, arXiv 2104.09864, eq. 34.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// True: elements `2 i` and `2 i + 1` are a pair, as in RoFormer and FLUX. False: elements `i` and `i + D / 2`, as
    /// `rotate_half` of Llama and Qwen.
    pub interleaved: bool,
}

impl Rope {
    fn rotate(&self, ctx: &Context, x: &Tensor, cos: &Tensor, sin: &Tensor, inverse: bool) -> Result<Tensor> {
        let (cos, sin) = (cos.contiguous(ctx)?, sin.contiguous(ctx)?);
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        if ctx.is_gpu() {
            // Heads may lie anywhere: one sequence's part of several, or the transpose of an attention's gradient.
            let x = if x.strides().last() == Some(&1) { x.clone() } else { x.contiguous(ctx)? };
            cuda::rotate(ctx, self.name(), *self, &x, (&cos, &sin), inverse, &mut y)?;
            return Ok(y);
        }
        let x = x.contiguous(ctx)?;
        let (shape, mode) = ((x.shape()[1], x.shape()[2]), (self.interleaved, inverse));
        crate::for_float!(self.name(), x.dtype(), T => {
            let angles = (cos.as_slice()?, sin.as_slice()?);
            cpu::rotate::<T>(ctx, x.as_slice()?, angles, shape, mode, y.as_mut_slice()?);
            Ok(())
        })?;
        Ok(y)
    }
}

impl Operator for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x, cos, sin], []) = expect_counts(self.name(), inputs, weights)?;
        expect_float(self.name(), [x])?;
        let fits =
            matches!(x.shape[..], [t, h, d] if h > 0 && d > 0 && d % 2 == 0 && cos.shape[..] == [t, d / 2]);
        if !fits || cos.shape != sin.shape {
            let wanted = "x [T, H, D] with H and D at least 1 and D even, cos and sin [T, D / 2]";
            return Err(Error::shape(self.name(), (&x.shape, &cos.shape, &sin.shape), wanted));
        }
        for table in [cos, sin] {
            if table.dtype != x.dtype.accumulator() {
                let wanted = format!("{} for the tables of an x of {}", x.dtype.accumulator(), x.dtype);
                return Err(Error::DType { op: self.name(), given: table.dtype, wanted });
            }
        }
        if need.input(1) || need.input(2) {
            let message = "cos and sin are tables and get no gradient; detach them";
            return Err(Error::argument(self.name(), message));
        }
        let saved = [SavedSpec::Input(1), SavedSpec::Input(2)];
        Ok(Inferred::one(x.clone(), saved.into_iter().filter(|_| need.any())))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let y = self.rotate(ctx, call.inputs[0], call.inputs[1], call.inputs[2], false)?;
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let (cos, sin) = (backward.saved(self.name(), 0)?, backward.saved(self.name(), 1)?);
        let dx = self.rotate(ctx, backward.grad(self.name())?, cos, sin, true)?;
        Ok(smallvec![Some(dx), None, None])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};
    use bigmac_close::{absolute, assert_close};
    use bigmac_runtime::DType;

    #[test]
    fn every_shape_passes() {
        for interleaved in [false, true] {
            for [t, h, d] in
                [[1, 1, 2], [5, 3, 6], [7, 4, 24], [3, 2, 66], [0, 2, 4], [3, 8, 64], [9, 12, 16]]
            {
                let table = |stream| (random(&[t, d / 2], stream), [t, d / 2]);
                let ((cos, shape), (sin, _)) = (table(1), table(2));
                Check::new(&Rope { interleaved })
                    .input(&[t, h, d])
                    .input_accumulator(cos, &shape)
                    .input_accumulator(sin, &shape)
                    .run()
                    .unwrap();
            }
        }
    }

    #[test]
    fn pairs_turn_by_the_angle_of_their_token() {
        let ctx = Context::cpu(0, 1).unwrap();
        let (cos, sin) = rope_tables(&ctx, &[&[0.0, 1.0]], &[4], 100.0, DType::F64).unwrap();
        let x = Tensor::from_slice(&ctx, &[1f64, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], &[2, 1, 4]).unwrap();
        // Angles of token 1: 1 and 100^(-2/4) = 0.1.
        let turn = |a: f64, b: f64, angle: f64| {
            (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
        };
        for (interleaved, order) in [(false, [0, 2, 1, 3]), (true, [0, 1, 2, 3])] {
            let y = Rope { interleaved }.compute(&ctx, &[&x, &cos, &sin], &[]).unwrap();
            let y = y.as_slice::<f64>().unwrap().to_vec();
            assert_eq!(y[..4], [1.0, 2.0, 3.0, 4.0]);
            let at = |i: usize| (order[i] + 1) as f64;
            let ((a, b), (c, d)) = (turn(at(0), at(1), 1.0), turn(at(2), at(3), 0.1));
            for (i, wanted) in [a, b, c, d].into_iter().enumerate() {
                assert_close(y[4 + order[i]], wanted, absolute(1e-14));
            }
        }
    }
}
