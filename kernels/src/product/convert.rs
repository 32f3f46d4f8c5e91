//! Between the dtype that tensors are stored in and the one that products are computed in.

use crate::numeric::Float;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

/// Elements to a block of work.
const BLOCK: usize = 16 * 1024;

/// The tensor, contiguous and in its accumulator dtype: itself where it is so already, else a copy in the workspace.
pub(crate) fn widened(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    let dtype = tensor.dtype().accumulator();
    if tensor.is_contiguous() && tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    let ctx = &ctx.in_scope(scopes::WORKSPACE);
    let tensor = tensor.contiguous(ctx)?;
    if tensor.dtype() == dtype {
        return Ok(tensor);
    }
    let mut wide = Tensor::empty(ctx, tensor.shape(), dtype)?;
    crate::for_float!("widened", tensor.dtype(), T => {
        let (from, to) = (tensor.as_slice::<T>()?, wide.as_mut_slice::<<T as Float>::Acc>()?);
        ctx.threads().chunks_mut(to, BLOCK, |i, to| {
            for (to, from) in to.iter_mut().zip(&from[i * BLOCK..]) {
                *to = from.acc();
            }
        });
        Ok(wide)
    })
}

/// A result in accumulator dtype `R`, computed by `compute` into every element of the slice it is given, as a tensor of
/// dtype `T`: written in place where the two are one, else rounded once from the workspace.
pub(crate) fn rounded<T: Float>(
    ctx: &Context,
    shape: &[usize],
    compute: impl FnOnce(&mut [T::Acc]) -> Result<()>,
) -> Result<Tensor> {
    let wide = <T::Acc as bigmac_runtime::Element>::DTYPE;
    let mut out = Tensor::empty(ctx, shape, T::DTYPE)?;
    if wide == T::DTYPE {
        compute(out.as_mut_slice::<T::Acc>()?)?;
        return Ok(out);
    }
    let mut result = Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), shape, wide)?;
    compute(result.as_mut_slice::<T::Acc>()?)?;
    let from = result.as_slice::<T::Acc>()?;
    ctx.threads().chunks_mut(out.as_mut_slice::<T>()?, BLOCK, |i, to| {
        for (to, &from) in to.iter_mut().zip(&from[i * BLOCK..]) {
            *to = T::from_acc(from);
        }
    });
    Ok(out)
}
