//! Joining on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("concat/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// Writes the rows of `part` elements of `x` from element `start` on into the rows of `whole` elements of `y`.
pub(super) fn place(
    ctx: &Context,
    x: &Tensor,
    y: &mut Tensor,
    [part, start, whole]: [usize; 3],
) -> Result<()> {
    let launch = over("concat", &SOURCE, "concat_part", x.dtype(), x.len())?;
    let extents = [Arg::i32(part)?, Arg::i32(start)?, Arg::i32(whole)?];
    ctx.launch(&launch, &[&[Arg::i64(x.len())?, x.arg()?, y.arg_mut()?][..], &extents].concat())
}
