//! Sums on a GPU: launches of `kernel.cu`, and what other sums over whole tensors share.

use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};

/// What sources of such sums include.
pub(crate) const HEADER: (&str, &str) = ("total.cuh", include_str!("../total.cuh"));

static SOURCE: Source =
    Source { file: "sum/kernel.cu", text: include_str!("kernel.cu"), includes: &[HEADER] };

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

/// Threads of a block.
const THREADS: usize = 256;
/// Bytes of an access.
const PACK_BYTES: usize = 16;
/// Packs that a thread has under way at once, as in `total.cuh`.
const CHAINS: usize = 4;
/// The most blocks, whatever the device: enough that the last of a few rounds over its multiprocessors costs little.
const MOST_BLOCKS: usize = 8192;

/// Blocks over `len` elements that go one pack to a thread.
pub(crate) fn pack_blocks(len: usize, dtype: DType) -> usize {
    len.div_ceil(PACK_BYTES / dtype.size() * THREADS)
}

/// The launch of a kernel of `source` whose threads take packs of `dtype`.
pub(crate) fn pack_launch(
    op: &'static str,
    source: &'static Source,
    kernel: &'static str,
    dtype: DType,
    blocks: usize,
) -> Result<Launch> {
    Ok(Launch::new(source, kernel).element(dtype.in_kernels(op)?).grid([blocks, 1, 1]).block(THREADS))
}

/// `y[0] = factor * sum of terms`, or that much more when `add`, where `kernel` of `source` adds up blocks of terms of
/// the contiguous tensors `x`, all of one length and dtype. `y` is `[1]`, F32.
pub(crate) fn total<const N: usize>(
    ctx: &Context,
    op: &'static str,
    (source, kernel): (&'static Source, &'static str),
    x: [&Tensor; N],
    (factor, add): (f64, bool),
    y: &mut Tensor,
) -> Result<()> {
    let (len, dtype) = (x[0].len(), x[0].dtype());
    let blocks = pack_blocks(len, dtype).div_ceil(CHAINS).min(MOST_BLOCKS);
    let launch = pack_launch(op, source, kernel, dtype, blocks)?;
    let mut partials = Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[blocks], DType::F32)?;
    let mut args = x.iter().map(|x| x.arg()).collect::<Result<Vec<Arg>>>()?;
    args.extend([Arg::i64(len)?, partials.arg_mut()?]);
    ctx.launch(&launch, &args)?;
    finish(ctx, op, &partials, (factor, add), y)
}

/// `y[0] = factor * sum of the elements of `partials``, or that much more when `add`: for a few thousand F32 elements.
pub(crate) fn finish(
    ctx: &Context,
    op: &'static str,
    partials: &Tensor,
    (factor, add): (f64, bool),
    y: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(&SOURCE, "sum_finish").element(DType::F32.in_kernels(op)?).block(1024);
    let (count, add) = (Arg::i64(partials.len())?, Arg::I32(i32::from(add)));
    ctx.launch(&launch, &[partials.arg()?, count, Arg::f32(factor), add, y.arg_mut()?])
}

/// The sum of a contiguous tensor.
pub(super) fn forward(ctx: &Context, op: &'static str, x: &Tensor) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, &[1], DType::F32)?;
    total(ctx, op, (&SOURCE, "sum_partial"), [x], (1.0, false), &mut y)?;
    Ok(y)
}

/// Writes the one element of `dy` to every element of `dx`.
pub(super) fn backward(ctx: &Context, op: &'static str, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    let launch = pack_launch(op, &SOURCE, "sum_backward", dx.dtype(), pack_blocks(dx.len(), dx.dtype()))?;
    let len = Arg::i64(dx.len())?;
    ctx.launch(&launch, &[dy.arg()?, len, dx.arg_mut()?])
}
