//! Between the dtype that tensors are stored in and the one that products are computed in.

use crate::cast::{cast, convert};
use crate::numeric::Float;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

/// The tensor, contiguous and in its accumulator dtype: itself where it is so already, else a copy in the workspace.
pub(crate) fn widened(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    let ctx = &ctx.in_scope(scopes::WORKSPACE);
    cast(ctx, &tensor.contiguous(ctx)?, tensor.dtype().accumulator())
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
    convert::<T::Acc, T>(ctx, result.as_slice()?, out.as_mut_slice()?);
    Ok(out)
}
