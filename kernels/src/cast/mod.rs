//! Change of float dtype.

pub(crate) mod cuda;

use crate::numeric::{Float, Real};
use crate::operator::*;
use crate::rows::BLOCK;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// `y = x` in float dtype `to`, rounded to nearest even (F64 to a half type by way of F32): input x of any shape and
/// float dtype (on a GPU F32 and BF16). Saves nothing but x's dtype. A cast to the dtype that x has is a view.
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
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let from = expect_float(self.name(), inputs)?;
        if !self.to.is_float() {
            return Err(Error::DType { op: self.name(), given: self.to, wanted: FLOATS.into() });
        }
        let spec = Spec { shape: x.shape.clone(), dtype: self.to };
        let saved = need.any().then_some(SavedSpec::Shape(0));
        Ok(if from == self.to { Inferred::view(spec, saved) } else { Inferred::one(spec, saved) })
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(cast(ctx, call.inputs[0], self.to)?))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let from = backward.saved(self.name(), 0)?.dtype();
        Ok(smallvec![Some(cast(ctx, backward.grad(self.name())?, from)?)])
    }
}

/// The values of a float tensor in another float dtype; the tensor itself when it has that dtype.
///
/// # Errors
/// [`Error::DType`] unless both are float types, on a GPU F32 and BF16; those of allocation.
pub fn cast(ctx: &Context, x: &Tensor, to: DType) -> Result<Tensor> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    let x = x.contiguous(ctx)?;
    let mut y = Tensor::empty(ctx, x.shape(), to)?;
    if ctx.is_gpu() {
        cuda::cast(ctx, &x, &mut y)?;
        return Ok(y);
    }
    crate::for_float!("cast", x.dtype(), T => {
        let x = x.as_slice::<T>()?;
        crate::for_float!("cast", to, U => {
            convert::<T, U>(ctx, x, y.as_mut_slice()?);
            Ok(())
        })
    })?;
    Ok(y)
}

/// `y = x` in another float type, rounded.
pub(crate) fn convert<T: Float, U: Float>(ctx: &Context, x: &[T], y: &mut [U]) {
    ctx.threads().chunks_mut(y, BLOCK, |block, y| {
        for (y, x) in y.iter_mut().zip(&x[block * BLOCK..]) {
            *y = U::from_acc(U::Acc::of(x.acc().f64()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, float_tensor, gpus, random, to_f64};
    use half::{bf16, f16};

    #[test]
    fn gradients_pass() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4]] {
            Check::new(&Cast { to: DType::F64 }).input(shape).cpu_only().run().unwrap();
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

    #[test]
    fn a_gpu_rounds_as_the_cpu() {
        let cpu = Context::cpu(0, 1).unwrap();
        // Every upper half, with lower halves around the tie.
        let values: Vec<f32> = (0..=u16::MAX)
            .step_by(3)
            .flat_map(|high| {
                [0, 0x7fff, 0x8000, 0x8001].map(|low| f32::from_bits(u32::from(high) << 16 | low))
            })
            .collect();
        let x = Tensor::from_slice(&cpu, &values, &[values.len()]).unwrap();
        let half = cast(&cpu, &x, DType::BF16).unwrap();
        for gpu in gpus().unwrap() {
            let gpu = Context::on_gpu(0, 1, gpu).unwrap();
            for (x, to) in [(&x, DType::BF16), (&half, DType::F32)] {
                let wanted = to_f64(&cpu, &cast(&cpu, x, to).unwrap()).unwrap();
                let given = cast(&gpu, &x.to_device(&gpu).unwrap(), to).unwrap();
                let given = to_f64(&cpu, &given.to_cpu(&gpu).unwrap()).unwrap();
                assert!(
                    given
                        .iter()
                        .zip(&wanted)
                        .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
                );
            }
            let error = cast(&gpu, &x.to_device(&gpu).unwrap(), DType::F16).unwrap_err().to_string();
            assert!(error.contains("f16"), "{error}");
        }
    }
}
