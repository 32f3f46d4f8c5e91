//! Table look-up on a GPU.

use crate::elementwise_cuda::source;
use crate::fill::cuda::fill;
use crate::gather_rows::cuda::{over_segments, segment_variants};
use crate::operator::WeightGrad;
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, DType, Result, Tensor};

static SOURCE: Source = source("embedding/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    segment_variants(&SOURCE).into()
}

/// As `kernel.cu` has them: threads of the block that sorts, and the most bits that it sorts by in a pass.
const SORT_THREADS: usize = 1024;
const DIGIT_BITS: u32 = 8;

/// Tokens sorted by id, those of one id in their order: the ids, and the tokens that have them, from element `start`
/// on.
struct Sorted {
    keys: Tensor,
    order: Tensor,
    start: usize,
}

/// Sorts tokens by their row of a table of `rows` rows.
fn sort(ctx: &Context, ids: &Tensor, rows: usize, launch: &Launch) -> Result<Sorted> {
    let n = ids.len();
    let empty = || Tensor::empty(ctx, &[2, n], DType::I32);
    let (mut keys, mut order) = (empty()?, empty()?);
    // `rows` itself stands for ids outside the table.
    let width = (usize::BITS - rows.leading_zeros()).max(1);
    let passes = width.div_ceil(DIGIT_BITS);
    let numbers = [Arg::i32(n)?, Arg::i32(rows)?, Arg::i32(passes)?, Arg::i32(width.div_ceil(passes))?];
    let pointers = [ids.arg()?, keys.arg_mut()?, order.arg_mut()?];
    ctx.launch(launch, &[&pointers[..], &numbers].concat())?;
    let start = if passes % 2 == 1 { 0 } else { n };
    Ok(Sorted { keys, order, start })
}

/// `grad[ids[t]] += dy[t]` in an order that the ids alone decide; ids outside the table are left out.
pub(super) fn scatter(
    ctx: &Context,
    ids: &Tensor,
    dy: &Tensor,
    [rows, width]: [usize; 2],
    grad: &mut WeightGrad<'_>,
) -> Result<()> {
    let (n, to) = (ids.len(), grad.arg_mut()?);
    let over = |kernel| over_segments("embedding", &SOURCE, kernel, dy, (n, width), to);
    let launch = over("embedding_backward")?;
    if !grad.accumulate {
        fill(ctx, to, DType::F32, rows * width, 0.0)?;
    }
    // In a block of its own, and compiled together with the sums.
    let sorted = sort(ctx, ids, rows, &over("sort_tokens")?.grid([n.min(1), 1, 1]).block(SORT_THREADS))?;
    let pointers = [sorted.keys.arg_at(sorted.start)?, sorted.order.arg_at(sorted.start)?, dy.arg()?, to];
    let numbers = [Arg::i32(n)?, Arg::i32(width)?, Arg::i32(rows)?, Arg::i32(i32::from(grad.accumulate))?];
    ctx.launch(&launch, &[&pointers[..], &numbers].concat())
}
