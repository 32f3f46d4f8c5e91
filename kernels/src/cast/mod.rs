//! Change of float dtype.

use crate::carrier::{carrier, carrier_spec};
use crate::numeric::{Float, Real};
use crate::operator::*;
use crate::rows::BLOCK;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// `y = x` in float dtype `to`, rounded to nearest even (F64 to a half type by way of F32): input x of any shape and float
/// dtype. Saves nothing but x's dtype. A cast to the dtype that x has is a view.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// The dtype of the output.
    pub to: DType,
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        expect_count(self.name(), "inputs", inputs, 1)?;
        expect_count(self.name(), "weights", weights, 0)?;
        let from = expect_float(self.name(), inputs)?;
        if !self.to.is_float() {
            return Err(Error::DType { op: self.name(), given: self.to, wanted: "a float type".into() });
        }
        let spec = Spec { shape: inputs[0].shape.clone(), dtype: self.to };
        let saved = need.any().then(|| SavedSpec::New(carrier_spec(&inputs[0])));
        Ok(if from == self.to { Inferred::view(spec, saved) } else { Inferred::one(spec, saved) })
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let saved = if need.any() { Some(carrier(ctx, inputs[0])?) } else { None };
        Ok(Forwarded::one(cast(ctx, inputs[0], self.to)?, saved))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let from = backward.saved(self.name(), 0)?.dtype();
        Ok([Some(cast(ctx, backward.grad(self.name())?, from)?)].into_iter().collect())
    }
}

/// The values of a float tensor in another float dtype; the tensor itself when it has that dtype.
///
/// # Errors
/// [`Error::DType`] unless both are float types; those of allocation.
pub fn cast(ctx: &Context, x: &Tensor, to: DType) -> Result<Tensor> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    let x = x.contiguous(ctx)?;
    let mut y = Tensor::empty(ctx, x.shape(), to)?;
    crate::for_float!("cast", x.dtype(), T => {
        let x = x.as_slice::<T>()?;
        crate::for_float!("cast", to, U => {
            convert::<T, U>(ctx, x, y.as_mut_slice()?);
            Ok(())
        })
    })?;
    Ok(y)
}

fn convert<T: Float, U: Float>(ctx: &Context, x: &[T], y: &mut [U]) {
    ctx.threads().chunks_mut(y, BLOCK, |block, y| {
        for (y, x) in y.iter_mut().zip(&x[block * BLOCK..]) {
            *y = U::from_acc(U::Acc::of(x.acc().f64()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, float_tensor, random, to_f64};
    use half::{bf16, f16};

    #[test]
    fn gradients_pass() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&Cast { to: DType::F64 }).input(shape).run().unwrap();
        }
    }

    #[test]
    fn every_pair_rounds_to_nearest_even() {
        let ctx = Context::cpu(0, 1).unwrap();
        let mut values = random(&[20_000], 4);
        values.extend([0.0, -0.0, 1e-40, 70_000.0, f64::INFINITY, f64::NEG_INFINITY, 6e-8, 65_520.0]);
        for from in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let x = float_tensor(&ctx, &values, &[values.len()], from).unwrap();
            let exact = to_f64(&ctx, &x).unwrap();
            for to in [DType::F64, DType::F32, DType::BF16, DType::F16] {
                let y = to_f64(&ctx, &cast(&ctx, &x, to).unwrap()).unwrap();
                for (&x, y) in exact.iter().zip(y) {
                    let wanted = match to {
                        DType::F64 => x,
                        DType::F32 => f64::from(x as f32),
                        DType::BF16 => bf16::from_f32(x as f32).to_f64(),
                        _ => f16::from_f32(x as f32).to_f64(),
                    };
                    assert_eq!(y.to_bits(), wanted.to_bits(), "{from} to {to}: {x}");
                }
            }
        }
    }

    #[test]
    fn integers_are_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = Tensor::from_slice(&ctx, &[1i32], &[1]).unwrap();
        assert!(cast(&ctx, &x, DType::F32).is_err());
        let y = Tensor::from_slice(&ctx, &[1f32], &[1]).unwrap();
        assert!(cast(&ctx, &y, DType::I32).is_err());
    }
}
