//! Sums on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("add/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

pub(super) fn add(ctx: &Context, a: &Tensor, b: &Tensor, y: &mut Tensor) -> Result<()> {
    let launch = over("add", &SOURCE, "add_forward", a.dtype(), a.len())?;
    ctx.launch(&launch, &[Arg::i64(a.len())?, a.arg()?, b.arg()?, y.arg_mut()?])
}

pub(super) fn accumulate(ctx: &Context, a: &mut Tensor, b: &Tensor) -> Result<()> {
    let launch = over("add", &SOURCE, "add_forward", a.dtype(), a.len())?;
    let a_and_y = a.arg_mut()?;
    ctx.launch(&launch, &[Arg::i64(a.len())?, a_and_y, b.arg()?, a_and_y])
}
