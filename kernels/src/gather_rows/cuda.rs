//! Rows of a matrix on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use crate::tiling::pack;
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, Error, Result, Tensor};

static SOURCE: Source = source("gather_rows/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    let gathers = variants(&SOURCE, Some(("VEC", &[1])));
    [gathers].into_iter().chain(segment_variants(&SOURCE)).collect()
}

/// Threads to a block of `segment_sums`.
const SEGMENT_THREADS: usize = 128;

/// Numbers of rows as an I32 tensor on the device.
///
/// # Errors
/// [`Error::Argument`] for a number above those of I32; those of allocation and copying.
pub(super) fn upload(ctx: &Context, rows: impl Iterator<Item = usize>) -> Result<Tensor> {
    let rows = rows.map(|row| {
        i32::try_from(row).map_err(|_| {
            Error::argument("gather_rows", format!("expected rows that fit i32 on a GPU, got {row}"))
        })
    });
    let rows = rows.collect::<Result<Vec<i32>>>()?;
    Tensor::from_slice(ctx, &rows, &[rows.len()])
}

/// `y[i] = x[rows[i]]`, a row of NaN where there is no such row; `x` `[T, D]`, `rows` I32.
pub(crate) fn gather(ctx: &Context, x: &Tensor, rows: &Tensor, y: &mut Tensor) -> Result<()> {
    let [limit, width] = [Arg::i32(x.shape()[0])?, Arg::i32(x.shape()[1])?];
    // VEC is a knob of the kernel beside it.
    let launch = over("gather_rows", &SOURCE, "gather_rows", x.dtype(), y.len())?.knob("VEC", 1);
    ctx.launch(&launch, &[Arg::i64(y.len())?, x.arg()?, rows.arg()?, y.arg_mut()?, width, limit])
}

/// A launch of a kernel that calls `segment_sums` for the rows of `dy` `[n, width]`, whose sums go to rows of that
/// width at `to`.
///
/// # Errors
/// [`Error::DType`] in the name of `op` unless dy is F32 or BF16.
pub(crate) fn over_segments(
    op: &'static str,
    source: &'static Source,
    kernel: &'static str,
    dy: &Tensor,
    (n, width): (usize, usize),
    to: Arg,
) -> Result<Launch> {
    let launch = Launch::new(source, kernel).element(dy.dtype().in_kernels(op)?);
    let pack = pack(dy.dtype(), width, &[dy.arg()?, to]);
    // PACKS is a knob of maps.
    let launch = launch.knob("PACKS", 1).knob("VEC", pack as i64);
    Ok(launch.knob("THREADS", SEGMENT_THREADS as i64).grid([n, 1, 1]).block(SEGMENT_THREADS))
}

/// The programs that launches of [`over_segments`] ask for.
pub(crate) fn segment_variants(source: &'static Source) -> [Variants; 2] {
    let elements: [(&'static [&'static str], i64); 2] = [(&["float"], 4), (&["bf16"], 8)];
    elements.map(|(elements, pack)| {
        let knobs = |pack| [("PACKS", 1), ("THREADS", SEGMENT_THREADS as i64), ("VEC", pack)];
        Variants::new(source).elements(elements).with(knobs(pack)).with(knobs(1))
    })
}

/// `dx[rows[i]] += dy[i]` in the order of `i`, rounded once; `dx` `[T, D]` holds zeros.
pub(super) fn scatter(ctx: &Context, rows: &[usize], dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    // Stable: the terms of a row stay in their order.
    order.sort_by_key(|&i| rows[i]);
    let sorted = upload(ctx, order.iter().map(|&i| rows[i]).chain(order.iter().copied()))?;
    let (n, [limit, width], to) = (rows.len(), [dx.shape()[0], dx.shape()[1]], dx.arg_mut()?);
    let launch = over_segments("gather_rows", &SOURCE, "gather_rows_backward", dy, (n, width), to)?;
    let pointers = [sorted.arg()?, sorted.arg_at(n)?, dy.arg()?, to];
    ctx.launch(&launch, &[&pointers[..], &[Arg::i32(n)?, Arg::i32(width)?, Arg::i32(limit)?]].concat())
}
