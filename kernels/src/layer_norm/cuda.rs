//! Layer normalisation on a GPU, scaled by `offset + w`.

use crate::tiling::{INCLUDES, RowTiles, pack};
use bigmac_gpu::{Arg, Launch, Source, Variants};
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
    let (width, rows) = (w.len(), x.len() / w.len());
    let [x_arg, w_arg, b_arg, y_arg] = [x.arg()?, w.arg()?, b.arg()?, y.arg_mut()?];
    let tiles = RowTiles::new(width, pack(x.dtype(), width, &[x_arg, w_arg, b_arg, y_arg]));
    let launch =
        tiles.over(Launch::new(&SOURCE, "layer_norm_forward").element(x.dtype().in_kernels(op)?), rows);
    let extents = [Arg::i32(rows)?, Arg::i32(width)?, Arg::f32(1.0 / width as f64), Arg::f32(eps)];
    let tensors = [x_arg, w_arg, b_arg, Arg::f32(offset), y_arg, statistics.arg_mut()?];
    ctx.launch(&launch, &[&tensors[..], &extents].concat())
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
    let (width, rows) = (w.len(), x.len() / w.len());
    let [x_arg, w_arg, dy_arg, dx_arg] = [x.arg()?, w.arg()?, dy.arg()?, dx.arg_mut()?];
    let tiles = RowTiles::new(width, pack(x.dtype(), width, &[x_arg, w_arg, dy_arg, dx_arg]));
    let launch =
        tiles.over(Launch::new(&SOURCE, "layer_norm_backward").element(x.dtype().in_kernels(op)?), rows);
    let extents = [Arg::i32(rows)?, Arg::i32(width)?, Arg::f32(1.0 / width as f64)];
    let tensors = [x_arg, w_arg, Arg::f32(offset), statistics.arg()?, dy_arg, dx_arg];
    ctx.launch(&launch, &[&tensors[..], &extents].concat())
}
