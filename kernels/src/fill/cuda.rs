//! One value everywhere, on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, DType, Result};

static SOURCE: Source = source("fill/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// Writes `value` to the `n` elements of `dtype` from `first` on.
pub(crate) fn fill(ctx: &Context, first: Arg, dtype: DType, n: usize, value: f64) -> Result<()> {
    ctx.launch(&over("fill", &SOURCE, "fill_all", dtype, n)?, &[Arg::i64(n)?, first, Arg::f32(value)])
}
