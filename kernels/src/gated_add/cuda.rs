//! Gated sums on a GPU.

use crate::tiling::{self, ColumnTiles, INCLUDES, pack};
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source =
    Source { file: "gated_add/kernel.cu", text: include_str!("kernel.cu"), includes: INCLUDES };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    let launch = Launch::new(&SOURCE, "");
    tiling::variants(&SOURCE, |list, dtype| {
        ColumnTiles::all(dtype)
            .into_iter()
            .fold(list, |list, tiles| list.launched(&tiles.over(launch.clone())))
    })
}

/// `z = x + gate * y`, or `gate * y` without an x, for contiguous tensors.
pub(super) fn gated_add(
    ctx: &Context,
    op: &'static str,
    x: Option<&Tensor>,
    (gate, y): (&Tensor, &Tensor),
    z: &mut Tensor,
) -> Result<()> {
    let (width, rows) = (gate.len(), y.len() / gate.len());
    let x = x.map_or(Ok(Arg::NULL), Tensor::arg)?;
    let [gate, y_arg, z] = [gate.arg()?, y.arg()?, z.arg_mut()?];
    let tiles = ColumnTiles::new(width, pack(y.dtype(), width, &[x, gate, y_arg, z]), false);
    let launch = tiles.over(Launch::new(&SOURCE, "gated_add").element(y.dtype().in_kernels(op)?));
    let launch = launch.grid([tiles.across * rows.div_ceil(tiles.batch()), 1, 1]);
    ctx.launch(&launch, &[x, gate, y_arg, z, Arg::i32(rows)?, Arg::i32(width)?])
}
