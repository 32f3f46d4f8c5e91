//! Sums of squares on a GPU.

use crate::sum::cuda::{HEADER, total};
use bigmac_gpu::{Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source =
    Source { file: "norm/kernel.cu", text: include_str!("kernel.cu"), includes: &[HEADER] };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

/// Writes the sum of squares of a contiguous tensor to `y[0]`, or adds it.
pub(super) fn squares(ctx: &Context, op: &'static str, x: &Tensor, add: bool, y: &mut Tensor) -> Result<()> {
    total(ctx, op, (&SOURCE, "squares_partial"), [x], (1.0, add), y)
}
