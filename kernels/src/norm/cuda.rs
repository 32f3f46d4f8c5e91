//! Sums of squares on a GPU.

use crate::sum::cuda::{HEADER, total};
use bigmac_gpu::Source;
use bigmac_runtime::{Context, Result, Tensor};

pub(crate) static SOURCE: Source =
    Source { file: "norm/kernel.cu", text: include_str!("kernel.cu"), includes: &[HEADER] };

/// Writes the sum of squares of a contiguous tensor to `y[0]`, or adds it.
pub(super) fn squares(ctx: &Context, op: &'static str, x: &Tensor, add: bool, y: &mut Tensor) -> Result<()> {
    total(ctx, op, (&SOURCE, "squares_partial"), [x], (1.0, add), y)
}
