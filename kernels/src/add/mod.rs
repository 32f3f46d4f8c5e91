//! Sum of two tensors.

mod cpu;

use crate::operator::*;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// `y = a + b`: inputs `a` and `b` of one shape and float dtype; the output is contiguous. Saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Add;

impl Operator for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        expect_count(self.name(), "inputs", inputs, 2)?;
        expect_count(self.name(), "weights", weights, 0)?;
        expect_float(self.name(), inputs)?;
        if inputs[0].shape != inputs[1].shape {
            return Err(Error::shape(self.name(), (&inputs[0].shape, &inputs[1].shape), "two equal shapes"));
        }
        Ok(Inferred::one(inputs[0].clone(), []))
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        _need: Need<'_>,
    ) -> Result<Forwarded> {
        Ok(Forwarded::one(add(ctx, inputs[0], inputs[1])?, []))
    }

    fn backward_input(&self, _ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dy = backward.grad(self.name())?;
        Ok((0..2).map(|i| backward.need.input(i).then(|| dy.clone())).collect())
    }
}

/// `a + b` in a tensor of its own, for two tensors of one shape and dtype.
///
/// # Errors
/// [`Error::DType`] and those of allocation.
pub fn add(ctx: &Context, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, a.shape(), a.dtype())?;
    let (a, b) = (a.contiguous(ctx)?, b.contiguous(ctx)?);
    crate::for_float!("add", a.dtype(), T => cpu::add::<T>(ctx, a.as_slice()?, b.as_slice()?, y.as_mut_slice()?))?;
    Ok(y)
}

/// Adds `b` to `a`, in `a`'s own storage when nobody else holds it.
///
/// # Errors
/// As [`add`].
pub fn accumulate(ctx: &Context, mut a: Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.is_unshared() || !a.is_contiguous() {
        return add(ctx, &a, b);
    }
    let b = b.contiguous(ctx)?;
    crate::for_float!("add", a.dtype(), T => cpu::accumulate::<T>(ctx, a.as_mut_slice()?, b.as_slice()?))?;
    Ok(a)
}

/// Adds `b` to `a` in place: two contiguous tensors of one length, F32 or F64; `a` must be unshared.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`], [`Error::Shared`].
pub fn add_assign(ctx: &Context, a: &mut Tensor, b: &Tensor) -> Result<()> {
    if a.shape() != b.shape() {
        return Err(Error::shape("add", (a.shape(), b.shape()), "two equal shapes"));
    }
    match a.dtype() {
        DType::F64 => cpu::accumulate::<f64>(ctx, a.as_mut_slice()?, b.as_slice()?),
        DType::F32 => cpu::accumulate::<f32>(ctx, a.as_mut_slice()?, b.as_slice()?),
        given => Err(Error::DType { op: "add", given, wanted: "f32 or f64".into() }),
    }
}
