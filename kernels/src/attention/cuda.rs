//! Attention on a GPU: tiles of queries or keys are listed on the host, blocks of a kernel take one each.

use super::variants::{Form, Tiling, Warpgroups, padded, variants};
use super::{Attention, Given, Problem};
use bigmac_runtime::gpu::{Arg, Gpu, Launch, Source, Swizzle, TensorMapShape, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};
use std::cmp::Reverse;

const TILE: (&str, &str) = ("attention/tile.cuh", include_str!("tile.cuh"));
const INCLUDES: &[(&str, &str)] = &[TILE, ("attention/tiles.cuh", include_str!("tiles.cuh"))];
static FORWARD: Source =
    Source { file: "attention/forward.cu", text: include_str!("forward.cu"), includes: INCLUDES };
static BACKWARD: Source =
    Source { file: "attention/backward.cu", text: include_str!("backward.cu"), includes: INCLUDES };
static HOPPER: Source =
    Source { file: "attention/hopper.cu", text: include_str!("hopper.cu"), includes: &[TILE] };

/// More tokens than this, and differences of places don't fit the kernels' integers.
const MOST_TOKENS: usize = 1 << 29;

/// Threads of a block of the kernel `attention_rows`, several of which take a row.
const ROWS_THREADS: usize = 256;
/// Members of the `Tile` in `tiles.cuh`.
const TILE_WORDS: usize = 5;

/// A tile as `tiles.cuh` describes it, and how many others it meets.
struct Tile {
    words: [i64; TILE_WORDS],
    others: i64,
}

impl Problem<'_> {
    /// Every tile of `rows` tokens, the one with most work first: blocks start in this order, so that the last to end are short.
    /// Without a mask, and among tiles of the same work, neighbours stay neighbours, which read the same keys.
    pub(super) fn tiles(&self, rows: usize, of_keys: bool) -> Vec<i32> {
        let mut tiles: Vec<Tile> = Vec::new();
        for (q, k) in self.bounds_q.windows(2).zip(self.bounds_k.windows(2)) {
            let [q0, n, k0, m] = [q[0], q[1] - q[0], k[0], k[1] - k[0]].map(|x| x as i64);
            for first in (0..if of_keys { m } else { n }).step_by(rows) {
                tiles.push(if of_keys {
                    let here = m.min(first + rows as i64) - first;
                    let bound = if self.causal { first + n - m } else { -(MOST_TOKENS as i64) };
                    Tile { words: [k0 + first, here, q0, n, bound], others: n - bound.max(0) }
                } else {
                    let here = n.min(first + rows as i64) - first;
                    let bound = if self.causal { first + 1 + m - n } else { m };
                    Tile { words: [q0 + first, here, k0, m, bound], others: m.min(bound + here - 1) }
                });
            }
        }
        tiles.sort_by_key(|tile| Reverse(tile.others));
        // All are below MOST_TOKENS, see `check`.
        tiles.iter().flat_map(|tile| tile.words).map(|word| word as i32).collect()
    }

    /// The list of tiles on the device, and how many there are.
    fn table(&self, ctx: &Context, rows: usize, of_keys: bool) -> Result<(Tensor, usize)> {
        let tiles = self.tiles(rows, of_keys);
        let table = Tensor::from_slice(&ctx.in_scope(scopes::WORKSPACE), &tiles, &[tiles.len()])?;
        Ok((table, tiles.len() / TILE_WORDS))
    }

    fn check(&self) -> Result<()> {
        let tokens = [self.bounds_q, self.bounds_k].map(|bounds| bounds[bounds.len() - 1]);
        if tokens.iter().all(|&t| t <= MOST_TOKENS) {
            return Ok(());
        }
        let message = format!("got {tokens:?} queries and keys, a GPU takes up to {MOST_TOKENS}");
        Err(Error::argument(Attention::NAME, message))
    }

    /// The last arguments of all kernels over tiles.
    fn numbers(&self, tokens: usize) -> Result<[Arg; 5]> {
        let [heads, group, dim, tokens] =
            [self.heads, self.heads / self.key_heads, self.dim, tokens].map(Arg::i32);
        Ok([heads?, group?, dim?, tokens?, Arg::f32(self.scale)])
    }
}

/// A kernel for heads of `dim` columns, `ELEMENT` left open.
fn launch(
    source: &'static Source,
    kernel: &'static str,
    dim: usize,
    aligned: bool,
    tiling: &Tiling,
) -> Launch {
    let columns = padded(dim);
    let launch = Launch::new(source, kernel).knob("HEAD", columns as i64).knob("EXACT", columns == dim);
    tiling.set(launch.knob("ALIGNED", aligned))
}

/// What kernels are compiled with for some head sizes: the tuned ones, and the largest of those that share a variant.
pub(super) fn programs() -> Vec<Variants> {
    let mut programs = Vec::new();
    let mut hopper = Variants::new(&HOPPER).elements(&[]).targets(&["sm_90a"]);
    for (dtype, element, dims) in
        [(DType::BF16, &["bf16"], &[64, 112, 128, 256][..]), (DType::F32, &["float"], &[128, 256])]
    {
        let mut forward = Variants::new(&FORWARD).elements(element);
        let mut backward = Variants::new(&BACKWARD).elements(element);
        for (&dim, aligned) in dims.iter().flat_map(|dim| [(dim, true), (dim, false)]) {
            // What can't be read 16 bytes at a time is slow anyway: one variant of one size stands for all.
            let most = if aligned { usize::MAX } else { usize::from(dim == 128) };
            for variant in variants(dtype, dim).iter().take(most) {
                match &variant.forward {
                    Form::Warps(tiling) => {
                        forward = forward.launched(&launch(&FORWARD, "", dim, aligned, tiling));
                    }
                    Form::Warpgroups(shape) => hopper = hopper.launched(&hopper_launch(dim, shape)),
                }
                for tiling in [&variant.keys, &variant.queries] {
                    backward = backward.launched(&launch(&BACKWARD, "", dim, aligned, tiling));
                }
            }
        }
        programs.extend([forward, backward]);
    }
    programs.push(hopper);
    programs
}

/// True when rows of the tensor's heads can be read 16 bytes at a time.
fn aligned(tensor: &Tensor) -> Result<bool> {
    let strides = tensor.strides()[..2].iter().all(|s| (s * tensor.dtype().size()).is_multiple_of(16));
    Ok(strides && matches!(tensor.arg()?, Arg::Pointer(address) if address.is_multiple_of(16)))
}

fn all_aligned(tensors: &[&Tensor]) -> Result<bool> {
    tensors.iter().try_fold(true, |all, tensor| Ok(all && aligned(tensor)?))
}

/// Strides of tokens and heads of each.
fn strides(tensors: &[&Tensor]) -> Result<Vec<Arg>> {
    tensors.iter().flat_map(|t| &t.strides()[..2]).map(|&stride| Arg::i64(stride)).collect()
}

/// The tensor as a view whose last dimension has stride 1.
fn operand(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if tensor.strides()[2] == 1 { Ok(tensor.clone()) } else { tensor.copy(&ctx.in_scope(scopes::WORKSPACE)) }
}

/// The output, and the log-sum-exp of each query's scores `[heads, tokens]` when it is wanted.
pub(super) fn forward(
    ctx: &Context,
    problem: &Problem<'_>,
    inputs: [&Tensor; 3],
    asked: Option<usize>,
    keep_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let dtype = inputs[0].dtype();
    problem.check()?;
    let [q, k, v] = inputs.map(|t| operand(ctx, t));
    let (q, k, v) = (q?, k?, v?);
    let inputs = [&q, &k, &v];
    let aligned = all_aligned(&inputs)?;
    let target = ctx.gpu().map(|gpu| gpu.driver().target());
    // The tensor memory accelerator knows no tensors without elements.
    let usable = aligned && padded(problem.dim) == problem.dim && !q.is_empty() && !k.is_empty();
    let usable = usable && matches!(target, Some("sm_90a" | "replay"));
    let variant = problem.variant(dtype, asked, usable && target == Some("sm_90a"))?;
    let mut out = Tensor::empty(ctx, q.shape(), dtype)?;
    let lse_ctx = if keep_lse { ctx.clone() } else { ctx.in_scope(scopes::WORKSPACE) };
    let mut lse = Tensor::empty(&lse_ctx, &[problem.heads, q.shape()[0]], DType::F32)?;
    match (&variant.forward, ctx.gpu()) {
        (Form::Warps(tiling), _) => by_warps(ctx, problem, inputs, aligned, tiling, [&mut out, &mut lse])?,
        (Form::Warpgroups(shape), Some(gpu)) if usable => {
            by_warpgroups(ctx, gpu, problem, inputs, shape, [&mut out, &mut lse])?;
        }
        (Form::Warpgroups(_), _) => {
            let message = "got a variant by warpgroups, which wants a GPU of sm_90a, some queries and keys, and rows that start at \
                           multiples of 16 bytes; use another variant";
            return Err(Error::argument(Attention::NAME, message));
        }
    }
    Ok((out, keep_lse.then_some(lse)))
}

fn by_warps(
    ctx: &Context,
    problem: &Problem<'_>,
    [q, k, v]: [&Tensor; 3],
    aligned: bool,
    tiling: &Tiling,
    [out, lse]: [&mut Tensor; 2],
) -> Result<()> {
    let dtype = q.dtype();
    let (table, tiles) = problem.table(ctx, tiling.rows(), false)?;
    // Queries, and stages of keys and values.
    let rows = tiling.rows() + 2 * tiling.stages * tiling.others;
    let shared = rows * tiling.row_bytes(problem.dim, dtype) + tiling.scratch_bytes(dtype);
    let launch = launch(&FORWARD, "attention_forward", problem.dim, aligned, tiling)
        .element(Attention::NAME, dtype)?
        .grid([tiles * problem.heads, 1, 1])
        .block(tiling.threads())
        .shared(shared);
    let mut args = vec![table.arg()?, q.arg()?, k.arg()?, v.arg()?, out.arg_mut()?, lse.arg_mut()?];
    args.extend(strides(&[q, k, v])?);
    args.extend(problem.numbers(q.shape()[0])?);
    ctx.launch(&launch, &args)
}

/// A kernel by warpgroups.
fn hopper_launch(dim: usize, shape: &Warpgroups) -> Launch {
    shape.set(Launch::new(&HOPPER, "attention_forward_hopper").knob("HEAD", dim as i64))
}

fn by_warpgroups(
    ctx: &Context,
    gpu: &Gpu,
    problem: &Problem<'_>,
    inputs: [&Tensor; 3],
    shape: &Warpgroups,
    [out, lse]: [&mut Tensor; 2],
) -> Result<()> {
    let (table, tiles) = problem.table(ctx, shape.rows(), false)?;
    let blocks = tiles * problem.heads;
    let launch = hopper_launch(problem.dim, shape)
        .grid([blocks.min(gpu.driver().processors()), 1, 1])
        .block(shape.threads())
        .shared(shape.shared_bytes(problem.dim));
    let map = |tensor: &Tensor, rows: usize| {
        let size = tensor.dtype().size();
        let &[tokens, heads, dim] = tensor.shape() else {
            return Err(Error::shape(Attention::NAME, tensor.shape(), "[tokens, heads, dim]"));
        };
        let map = gpu.tensor_map(
            tensor,
            0,
            &TensorMapShape {
                element: size as u32,
                extents: [dim, tokens, heads].map(|n| n as u64).into(),
                strides: [0, 1].map(|i| (tensor.strides()[i] * size) as u64).into(),
                tile: vec![64, rows as u32, 1],
                swizzle: Swizzle::Bytes128,
            },
        );
        Ok(Arg::Map(map?))
    };
    let [q, k, v] = inputs;
    let group = problem.heads / problem.key_heads;
    let args = [
        map(q, shape.rows())?,
        map(k, shape.others)?,
        map(v, shape.others)?,
        table.arg()?,
        out.arg_mut()?,
        lse.arg_mut()?,
        Arg::i32(blocks)?,
        Arg::i32(problem.heads)?,
        Arg::i32(group)?,
        Arg::i32(q.shape()[0])?,
        Arg::f32(problem.scale),
    ];
    ctx.launch(&launch, &args)
}

/// Gradients of q, k and v, as far as they are wanted.
pub(super) fn backward(
    ctx: &Context,
    problem: &Problem<'_>,
    given: &Given<'_>,
    asked: Option<usize>,
) -> Result<[Option<Tensor>; 3]> {
    let dtype = given.inputs[0].dtype();
    problem.check()?;
    let variant = problem.variant(dtype, asked, false)?;
    let [q, k, v] = given.inputs.map(|t| operand(ctx, t));
    let (q, k, v, dout) = (q?, k?, v?, operand(ctx, given.dout)?);
    let tokens = q.shape()[0];
    let inputs = [&q, &k, &v, &dout];
    let aligned = all_aligned(&inputs)?;
    let kernel = |name, tiling: &Tiling| {
        launch(&BACKWARD, name, problem.dim, aligned, tiling).element(Attention::NAME, dtype)
    };
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let mut rows = Tensor::empty(&workspace, &[problem.heads, tokens, 2], DType::F32)?;
    let mut args = vec![given.out.arg()?, dout.arg()?, given.lse.arg()?, rows.arg_mut()?];
    args.extend(strides(&[&dout])?);
    args.extend([Arg::i32(problem.heads)?, Arg::i32(problem.dim)?, Arg::i32(tokens)?]);
    let lanes = (padded(problem.dim) * dtype.size() / 16).next_power_of_two().min(32);
    let blocks = (tokens * problem.heads).div_ceil(ROWS_THREADS / lanes);
    let launch = kernel("attention_rows", &variant.queries)?.grid([blocks, 1, 1]).block(ROWS_THREADS);
    ctx.launch(&launch, &args)?;

    let run = |name, tiling: &Tiling, of_keys, grads: &mut [&mut Tensor]| {
        let (table, tiles) = problem.table(ctx, tiling.rows(), of_keys)?;
        // The block's own two tiles, stages of two passing ones, and two floats for each of their rows.
        let shared_rows = 2 * tiling.rows() + 2 * tiling.stages * tiling.others;
        let shared = shared_rows * tiling.row_bytes(problem.dim, dtype)
            + tiling.stages * tiling.others * 8
            + tiling.scratch_bytes(dtype);
        let heads = if of_keys { problem.key_heads } else { problem.heads };
        let blocks = tiles * heads * tiling.parts;
        let launch = kernel(name, tiling)?.grid([blocks, 1, 1]).block(tiling.threads()).shared(shared);
        let mut args = vec![table.arg()?, q.arg()?, k.arg()?, v.arg()?, dout.arg()?, rows.arg()?];
        for grad in grads {
            args.push(grad.arg_mut()?);
        }
        args.extend(strides(&inputs)?);
        args.extend(problem.numbers(tokens)?);
        ctx.launch(&launch, &args)
    };
    let [need_q, need_k, need_v] = given.need;
    let mut dq = None;
    if need_q {
        let mut grad = Tensor::empty(ctx, q.shape(), dtype)?;
        run("attention_backward_queries", &variant.queries, false, &mut [&mut grad])?;
        dq = Some(grad);
    }
    if !need_k && !need_v {
        return Ok([dq, None, None]);
    }
    // One kernel gives both; what nobody wants is workspace.
    let scope = |wanted: bool| if wanted { ctx.clone() } else { workspace.clone() };
    let mut dk = Tensor::empty(&scope(need_k), k.shape(), dtype)?;
    let mut dv = Tensor::empty(&scope(need_v), v.shape(), dtype)?;
    run("attention_backward_keys", &variant.keys, true, &mut [&mut dk, &mut dv])?;
    Ok([dq, need_k.then_some(dk), need_v.then_some(dv)])
}
