//! Patches on a GPU.

use crate::elementwise_cuda::{THREADS, over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = source("patchify/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None)]
}

/// Runs `kernel`, `patchify` or `unpatchify`, over an image of shape `image` `[C, H, W]` and its patches.
pub(super) fn run(
    ctx: &Context,
    kernel: &'static str,
    from: &Tensor,
    to: &mut Tensor,
    image: &[usize],
    patch: usize,
) -> Result<()> {
    // A thread moves one element: neither side's neighbours are the other's.
    let blocks = from.len().div_ceil(THREADS);
    let launch = over("patchify", &SOURCE, kernel, from.dtype(), from.len())?.grid([blocks, 1, 1]);
    let mut args = vec![Arg::i64(from.len())?, from.arg()?, to.arg_mut()?];
    for &extent in image.iter().chain([&patch]) {
        args.push(Arg::i32(extent)?);
    }
    ctx.launch(&launch, &args)
}
