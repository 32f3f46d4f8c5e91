//! RMSNorm on a GPU.

use crate::tiling::{INCLUDES, RowTiles, pack};
use bigmac_gpu::{Arg, Launch, Source, Variants};
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
    let (width, rows) = (w.len(), x.len() / w.len());
    let (x_arg, w_arg, y_arg) = (x.arg()?, w.arg()?, y.arg_mut()?);
    let tiles = RowTiles::new(width, pack(x.dtype(), width, &[x_arg, w_arg, y_arg]));
    let launch =
        tiles.over(Launch::new(&SOURCE, "rms_norm_forward").element(x.dtype().in_kernels(op)?), rows);
    let [rows, columns] = [Arg::i32(rows)?, Arg::i32(width)?];
    let inverse = Arg::f32(1.0 / width as f64);
    ctx.launch(&launch, &[x_arg, w_arg, y_arg, rstd.arg_mut()?, rows, columns, inverse, Arg::f32(eps)])
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
    let (width, rows) = (w.len(), x.len() / w.len());
    let [x_arg, w_arg, dy_arg, dx_arg] = [x.arg()?, w.arg()?, dy.arg()?, dx.arg_mut()?];
    let tiles = RowTiles::new(width, pack(x.dtype(), width, &[x_arg, w_arg, dy_arg, dx_arg]));
    let launch =
        tiles.over(Launch::new(&SOURCE, "rms_norm_backward").element(x.dtype().in_kernels(op)?), rows);
    let [rows, columns] = [Arg::i32(rows)?, Arg::i32(width)?];
    let inverse = Arg::f32(1.0 / width as f64);
    ctx.launch(&launch, &[x_arg, w_arg, rstd.arg()?, dy_arg, dx_arg, rows, columns, inverse])
}
