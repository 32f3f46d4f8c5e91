//! RMSNorm on a GPU.

use crate::tiling::{INCLUDES, RowTiles};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source =
    Source { file: "rms_norm/kernel.cu", text: include_str!("kernel.cu"), includes: INCLUDES };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    RowTiles::variants(&SOURCE)
}

/// `y` and `rstd` of contiguous x `[.., D]` and w `[D]`.
pub(super) fn forward(
    ctx: &Context,
    op: &'static str,
    (x, w): (&Tensor, &Tensor),
    eps: f64,
    (y, rstd): (&mut Tensor, &mut Tensor),
) -> Result<()> {
    let shape = [x.len() / w.len(), w.len()];
    let tensors = [x.arg()?, w.arg()?, y.arg_mut()?];
    let (launch, extents) = RowTiles::launch(op, (&SOURCE, "rms_norm_forward"), x.dtype(), shape, &tensors)?;
    ctx.launch(&launch, &[&tensors[..], &[rstd.arg_mut()?], &extents, &[Arg::f32(eps)]].concat())
}

/// The gradient of x.
pub(super) fn backward_input(
    ctx: &Context,
    op: &'static str,
    (x, w): (&Tensor, &Tensor),
    rstd: &Tensor,
    dy: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let shape = [x.len() / w.len(), w.len()];
    let tensors = [x.arg()?, w.arg()?, dy.arg()?, dx.arg_mut()?];
    let (launch, extents) = RowTiles::launch(op, (&SOURCE, "rms_norm_backward"), x.dtype(), shape, &tensors)?;
    let [x, w, dy, dx] = tensors;
    ctx.launch(&launch, &[&[x, w, rstd.arg()?, dy, dx][..], &extents].concat())
}
