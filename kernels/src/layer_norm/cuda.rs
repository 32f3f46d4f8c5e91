//! Layer normalisation on a GPU, scaled by `offset + w`.

use crate::tiling::{INCLUDES, RowTiles};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source =
    Source { file: "layer_norm/kernel.cu", text: include_str!("kernel.cu"), includes: INCLUDES };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    RowTiles::variants(&SOURCE)
}

/// `y` and statistics of contiguous x `[.., D]`, w `[D]` and b `[D]`.
pub(super) fn forward(
    ctx: &Context,
    op: &'static str,
    x: &Tensor,
    (offset, w, b): (f64, &Tensor, &Tensor),
    eps: f64,
    (y, statistics): (&mut Tensor, &mut Tensor),
) -> Result<()> {
    let shape = [x.len() / w.len(), w.len()];
    let packs = [x.arg()?, w.arg()?, b.arg()?, y.arg_mut()?];
    let (launch, extents) = RowTiles::launch(op, (&SOURCE, "layer_norm_forward"), x.dtype(), shape, &packs)?;
    let [x, w, b, y] = packs;
    let tensors = [x, w, b, Arg::f32(offset), y, statistics.arg_mut()?];
    ctx.launch(&launch, &[&tensors[..], &extents, &[Arg::f32(eps)]].concat())
}

/// The gradient of x.
pub(super) fn backward_input(
    ctx: &Context,
    op: &'static str,
    x: &Tensor,
    (offset, w): (f64, &Tensor),
    statistics: &Tensor,
    dy: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let shape = [x.len() / w.len(), w.len()];
    let packs = [x.arg()?, w.arg()?, dy.arg()?, dx.arg_mut()?];
    let (launch, extents) = RowTiles::launch(op, (&SOURCE, "layer_norm_backward"), x.dtype(), shape, &packs)?;
    let [x, w, dy, dx] = packs;
    let tensors = [x, w, Arg::f32(offset), statistics.arg()?, dy, dx];
    ctx.launch(&launch, &[&tensors[..], &extents].concat())
}
