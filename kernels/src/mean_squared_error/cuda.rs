//! Squared errors on a GPU.

use crate::sum::cuda::{HEADER, pack_blocks, pack_launch, total};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, DType, Result, Tensor};

static SOURCE: Source =
    Source { file: "mean_squared_error/kernel.cu", text: include_str!("kernel.cu"), includes: &[HEADER] };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

/// `scale` times the sum of squared differences of contiguous tensors.
pub(super) fn forward(
    ctx: &Context,
    op: &'static str,
    [prediction, target]: [&Tensor; 2],
    scale: f64,
) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, &[1], DType::F32)?;
    total(ctx, op, (&SOURCE, "squared_error_partial"), [prediction, target], (scale, false), &mut y)?;
    Ok(y)
}

/// `dp = 2 scale dy (prediction - target)`.
pub(super) fn backward(
    ctx: &Context,
    op: &'static str,
    [prediction, target]: [&Tensor; 2],
    dy: &Tensor,
    scale: f64,
    dp: &mut Tensor,
) -> Result<()> {
    let blocks = pack_blocks(dp.len(), dp.dtype());
    let launch = pack_launch(op, &SOURCE, "squared_error_backward", dp.dtype(), blocks)?;
    let (len, factor) = (Arg::i64(dp.len())?, Arg::f32(2.0 * scale));
    ctx.launch(&launch, &[prediction.arg()?, target.arg()?, len, dy.arg()?, factor, dp.arg_mut()?])
}
