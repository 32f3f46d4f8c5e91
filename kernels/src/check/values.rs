//! Values of tensors, for checks and tests.

use crate::numeric::{Float, Real};
use crate::operator::FLOATS;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Element, Error, Result, Tensor};
use half::{bf16, f16};

/// The value, rounded to a float dtype.
pub(super) fn round_to(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => bf16::from_f32(value as f32).to_f64(),
        DType::F16 => f16::from_f32(value as f32).to_f64(),
        DType::F32 => f64::from(value as f32),
        _ => value,
    }
}

/// Normal random values, the same for the same shape and stream.
pub fn random(shape: &[usize], stream: u32) -> Vec<f64> {
    let mut rng = Philox::new(17, Purpose::new("operator check"), 0, stream);
    (0..shape.iter().product::<usize>()).map(|_| f64::from(rng.normal())).collect()
}

/// A tensor of `dtype` with those values, rounded.
///
/// # Errors
/// [`Error::DType`] when `dtype` is not a float type; those of allocation.
pub fn float_tensor(ctx: &Context, values: &[f64], shape: &[usize], dtype: DType) -> Result<Tensor> {
    fn make<T: Element>(
        ctx: &Context,
        values: &[f64],
        shape: &[usize],
        f: impl Fn(f64) -> T,
    ) -> Result<Tensor> {
        Tensor::from_slice(ctx, &values.iter().map(|&v| f(v)).collect::<Vec<T>>(), shape)
    }
    match dtype {
        DType::F64 => make(ctx, values, shape, |v| v),
        DType::F32 => make(ctx, values, shape, |v| v as f32),
        DType::BF16 => make(ctx, values, shape, |v| bf16::from_f32(v as f32)),
        DType::F16 => make(ctx, values, shape, |v| f16::from_f32(v as f32)),
        given => Err(Error::DType { op: "float_tensor", given, wanted: FLOATS.into() }),
    }
}

/// The values of a float tensor as F64.
///
/// # Errors
/// [`Error::DType`] when it holds no floats.
pub fn to_f64(ctx: &Context, tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.to_cpu(ctx)?;
    crate::for_float!("to_f64", tensor.dtype(), T => Ok(tensor.as_slice::<T>()?.iter().map(|v| v.acc().f64()).collect()))
}
