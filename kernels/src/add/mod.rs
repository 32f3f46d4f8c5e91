//! Sum of two tensors.

pub(crate) mod cuda;

use crate::elementwise::{infer_like_inputs, map};
use crate::numeric::Float;
use crate::operator::*;
use crate::rows::BLOCK;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// `y = a + b`: inputs `a` and `b` of one shape and float dtype; the output is contiguous. Saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Add;

impl Operator for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        infer_like_inputs::<2>(self.name(), inputs, weights, [])
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(add(ctx, call.inputs[0], call.inputs[1])?))
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
    if ctx.is_gpu() {
        cuda::add(ctx, &a, &b, &mut y)?;
    } else {
        crate::for_float!("add", a.dtype(), T => {
            map(ctx, [a.as_slice::<T>()?, b.as_slice()?], y.as_mut_slice()?, |[a, b]| a + b);
            Ok(())
        })?;
    }
    Ok(y)
}

/// Adds `b` to `a`, in `a`'s own storage when no other tensor holds it.
///
/// # Errors
/// As [`add`].
pub fn accumulate(ctx: &Context, mut a: Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.is_unshared() || !a.is_contiguous() {
        return add(ctx, &a, b);
    }
    let b = b.contiguous(ctx)?;
    if ctx.is_gpu() {
        cuda::accumulate(ctx, &mut a, &b)?;
    } else {
        crate::for_float!("add", a.dtype(), T => accumulate_on_cpu::<T>(ctx, a.as_mut_slice()?, b.as_slice()?))?;
    }
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
        DType::F32 if ctx.is_gpu() => cuda::accumulate(ctx, a, &b.contiguous(ctx)?),
        DType::F64 => accumulate_on_cpu::<f64>(ctx, a.as_mut_slice()?, b.as_slice()?),
        DType::F32 => accumulate_on_cpu::<f32>(ctx, a.as_mut_slice()?, b.as_slice()?),
        given => Err(Error::DType { op: "add", given, wanted: "f32 or f64".into() }),
    }
}

fn accumulate_on_cpu<T: Float>(ctx: &Context, a: &mut [T], b: &[T]) -> Result<()> {
    ctx.threads().chunks_mut(a, BLOCK, |i, a| {
        for (a, b) in a.iter_mut().zip(&b[i * BLOCK..]) {
            *a = T::from_acc(a.acc() + b.acc());
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, float_tensor, gpus, random, to_f64};

    #[test]
    fn every_shape_passes() {
        for shape in [&[1][..], &[3, 5], &[2, 7, 97], &[0, 4], &[4099]] {
            Check::new(&Add).input(shape).input(shape).run().unwrap();
        }
    }

    #[test]
    fn sums_go_into_the_first_tensor_unless_it_is_shared() {
        let cpu = Context::cpu(0, 1).unwrap();
        let mut contexts = vec![cpu.clone()];
        contexts.extend(gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap()));
        for ctx in contexts {
            for dtype in [DType::F32, DType::BF16] {
                let [a, b] = [1, 2]
                    .map(|stream| float_tensor(&ctx, &random(&[2051], stream), &[2051], dtype).unwrap());
                let values = |x: &Tensor| to_f64(&cpu, &x.to_cpu(&ctx).unwrap()).unwrap();
                let wanted = values(&add(&ctx, &a, &b).unwrap());
                let other = a.clone();
                let apart = accumulate(&ctx, a, &b).unwrap();
                assert!(apart.storage_id() != other.storage_id() && values(&apart) == wanted);
                let storage = other.storage_id();
                let inside = accumulate(&ctx, other, &b).unwrap();
                assert!(inside.storage_id() == storage && values(&inside) == wanted);
                let mut sum = apart;
                let result = add_assign(&ctx, &mut sum, &b);
                assert_eq!(result.is_ok(), dtype == DType::F32);
            }
        }
    }
}
