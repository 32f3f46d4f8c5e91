//! Putting other rows into a matrix on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("replace_rows/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// `y = x` with `y[rows[i]] = e[i]`, or zeros in those rows without an `e`; all of `[T, D]`.
pub(super) fn replace(
    ctx: &Context,
    x: &Tensor,
    e: Option<&Tensor>,
    rows: &[usize],
    y: &mut Tensor,
) -> Result<()> {
    let [tokens, width] = [y.shape()[0], y.shape()[1]];
    // Which row of e a token takes, so that one pass writes every row once.
    let mut source = vec![-1i32; tokens];
    for (i, &row) in (0i32..).zip(rows) {
        source[row] = i;
    }
    let source = Tensor::from_slice(ctx, &source, &[tokens])?;
    let e = e.map_or(Ok(Arg::NULL), Tensor::arg)?;
    let launch = over("replace_rows", &SOURCE, "replace_rows", x.dtype(), y.len())?;
    ctx.launch(&launch, &[Arg::i64(y.len())?, x.arg()?, e, source.arg()?, y.arg_mut()?, Arg::i32(width)?])
}
