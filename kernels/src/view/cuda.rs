//! The gradient of a slice on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("view/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// Writes the rows of `part` elements of `dy` from element `start` on into the rows of `whole` elements of `dx`, and
/// zeros around them.
pub(super) fn pad(
    ctx: &Context,
    dy: &Tensor,
    dx: &mut Tensor,
    [part, start, whole]: [usize; 3],
) -> Result<()> {
    let launch = over("narrow", &SOURCE, "narrow_backward", dx.dtype(), dx.len())?;
    let extents = [Arg::i32(part)?, Arg::i32(start)?, Arg::i32(whole)?];
    ctx.launch(&launch, &[&[Arg::i64(dx.len())?, dy.arg()?, dx.arg_mut()?][..], &extents].concat())
}
