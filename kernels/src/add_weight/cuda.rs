//! Adding a weight on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("add_weight/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// `y = x + w`, with `w` again and again.
pub(super) fn forward(ctx: &Context, x: &Tensor, w: &Tensor, y: &mut Tensor) -> Result<()> {
    let launch = over("add_weight", &SOURCE, "add_weight_forward", x.dtype(), x.len())?;
    ctx.launch(&launch, &[Arg::i64(x.len())?, x.arg()?, w.arg()?, y.arg_mut()?, Arg::i32(w.len())?])
}
