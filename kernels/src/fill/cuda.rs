//! One value everywhere, on a GPU.

use crate::elementwise_cuda::{over, source};
use bigmac_gpu::{Arg, Source};
use bigmac_runtime::{Context, DType, Result};

pub(crate) static SOURCE: Source = source("fill/kernel.cu", include_str!("kernel.cu"));

/// Writes `value` to the `n` elements of `dtype` from `first` on.
pub(crate) fn fill(ctx: &Context, first: Arg, dtype: DType, n: usize, value: f64) -> Result<()> {
    ctx.launch(&over("fill", &SOURCE, "fill_all", dtype, n)?, &[Arg::i64(n)?, first, Arg::f32(value)])
}
