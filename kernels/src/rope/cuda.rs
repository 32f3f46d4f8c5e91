//! Rotary embedding on a GPU.

use super::Rope;
use crate::tiling::{self, INCLUDES, pack};
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, Error, Result, Tensor};

static SOURCE: Source =
    Source { file: "rope/kernel.cu", text: include_str!("kernel.cu"), includes: INCLUDES };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    tiling::variants(&SOURCE, |list, dtype| {
        let knobs = |interleaved, pack: usize| {
            [("INTERLEAVED", i64::from(interleaved)), ("VEC", pack as i64), ("HEADS", 4)]
        };
        [(false, pack(dtype, 64, &[])), (true, pack(dtype, 64, &[])), (false, 1), (true, 1)]
            .into_iter()
            .fold(list, |list, (interleaved, pack)| list.with(knobs(interleaved, pack)))
    })
}

/// Turns x `[T, H, D]`, whose heads' elements lie side by side, into the contiguous y; backwards when `inverse`.
pub(super) fn rotate(
    ctx: &Context,
    op: &'static str,
    rope: Rope,
    x: &Tensor,
    (cos, sin): (&Tensor, &Tensor),
    inverse: bool,
    y: &mut Tensor,
) -> Result<()> {
    const BLOCK: usize = 256;
    let (&[tokens, heads, dim], &[by_token, by_head, _]) = (x.shape(), x.strides()) else {
        let wanted = "x [T, H, D]";
        return Err(Error::shape(op, x.shape(), wanted));
    };
    let half = dim / 2;
    let [x_arg, cos, sin, y] = [x.arg()?, cos.arg()?, sin.arg()?, y.arg_mut()?];
    let whole = pack(x.dtype(), half, &[x_arg, cos, sin, y]);
    let pack = if by_token.is_multiple_of(whole) && by_head.is_multiple_of(whole) { whole } else { 1 };
    let together = [4, 2, 1].into_iter().find(|n| heads.is_multiple_of(*n)).unwrap_or(1);
    let threads = tokens * (heads / together) * (half / pack);
    let launch = Launch::new(&SOURCE, "rope_rotate")
        .element(x.dtype().in_kernels(op)?)
        .knob("INTERLEAVED", rope.interleaved)
        .knob("VEC", pack as u32)
        .knob("HEADS", together as u32)
        .grid([threads.div_ceil(BLOCK), 1, 1])
        .block(BLOCK);
    let sign = Arg::F32(if inverse { -1.0 } else { 1.0 });
    let extents =
        [Arg::u32(threads)?, Arg::i32(heads)?, Arg::i32(half)?, Arg::i64(by_token)?, Arg::i64(by_head)?];
    ctx.launch(&launch, &[&[x_arg, cos, sin, y][..], &extents, &[sign]].concat())
}
