//! Attention on a GPU: tiles of queries or keys are listed on the host, blocks of a kernel take one each.

use super::choice::{Inputs, Target, Wanted};
use super::variants::{Form, Tiling, Warpgroups};
use super::{Attention, Given, Problem};
use bigmac_gpu::{Arg, Gpu, Launch, Swizzle, TensorMapShape};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};
use std::cmp::Reverse;

pub(crate) use super::choice::programs;

/// More tokens than this, and differences of places do not fit the kernels' integers.
const MOST_TOKENS: usize = 1 << 29;

/// Fewer blocks than this leave multiprocessors idle: two rounds of those of an H100.
const MANY_BLOCKS: usize = 264;

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
    /// Every tile of `rows` tokens, the one with most work first: blocks start in this order, so that the last to end
    /// are short. Without a mask, and among tiles of the same work, neighbours stay neighbours, which read the same
    /// keys.
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
        let message = format!("expected up to {MOST_TOKENS} queries and keys on a GPU, got {tokens:?}");
        Err(Error::argument(Attention::NAME, message))
    }

    /// What a call asks for: variant number `asked`, else one that suits the problem.
    fn wanted(&self, asked: Option<usize>) -> Wanted {
        asked.map_or_else(|| Wanted::Suitable { small: self.is_small() }, Wanted::Number)
    }

    /// True for few or short sequences.
    fn is_small(&self) -> bool {
        /// Rows of the first variants' tiles.
        const ROWS: usize = 128;
        let lengths = || self.bounds_q.windows(2).map(|w| w[1] - w[0]);
        let tiles: usize = lengths().map(|n| n.div_ceil(ROWS)).sum();
        tiles * self.heads < MANY_BLOCKS || lengths().all(|n| n <= ROWS / 2)
    }

    /// The last arguments of all kernels over tiles.
    fn numbers(&self, tokens: usize) -> Result<[Arg; 5]> {
        let [heads, group, dim, tokens] =
            [self.heads, self.heads / self.key_heads, self.dim, tokens].map(Arg::i32);
        Ok([heads?, group?, dim?, tokens?, Arg::f32(self.scale)])
    }
}

/// True when the form of a variant's forward can take these inputs on the device.
pub(super) fn takes(gpu: &Gpu, form: &Form, inputs: &[&Tensor]) -> Result<bool> {
    Ok(Inputs::new(inputs)?.suit(form, Target::of(gpu.driver().target())))
}

/// Strides of tokens and heads of each.
fn strides(tensors: &[&Tensor]) -> Result<Vec<Arg>> {
    tensors.iter().flat_map(|t| &t.strides()[..2]).map(|&stride| Ok(Arg::i64(stride)?)).collect()
}

/// The tensor as a view whose last dimension has stride 1.
fn operand(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if tensor.strides()[2] == 1 { Ok(tensor.clone()) } else { tensor.copy(&ctx.in_scope(scopes::WORKSPACE)) }
}

/// The output, and the log-sum-exp of each query's scores `[heads, tokens]` when it is wanted.
pub(super) fn forward(
    ctx: &Context,
    gpu: &Gpu,
    problem: &Problem<'_>,
    inputs: [&Tensor; 3],
    asked: Option<usize>,
    keep_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    problem.check()?;
    let [q, k, v] = inputs.map(|t| operand(ctx, t));
    let (q, k, v) = (q?, k?, v?);
    let tensors = [&q, &k, &v];
    let inputs = Inputs::new(&tensors)?;
    let form = inputs.forward(problem.wanted(asked), Target::of(gpu.driver().target()))?;
    let mut out = Tensor::empty(ctx, q.shape(), q.dtype())?;
    let lse_ctx = if keep_lse { ctx.clone() } else { ctx.in_scope(scopes::WORKSPACE) };
    let mut lse = Tensor::empty(&lse_ctx, &[problem.heads, q.shape()[0]], DType::F32)?;
    let launch = inputs.forward_launch(form);
    match form {
        Form::Warps(tiling) => {
            let launch = launch.element(q.dtype().in_kernels(Attention::NAME)?);
            let row_bytes = inputs.row_bytes();
            by_warps(ctx, problem, launch, tiling, row_bytes, tensors, [&mut out, &mut lse])?;
        }
        Form::Warpgroups(shape) => {
            by_warpgroups(ctx, gpu, problem, launch, shape, tensors, [&mut out, &mut lse])?;
        }
    }
    Ok((out, keep_lse.then_some(lse)))
}

fn by_warps(
    ctx: &Context,
    problem: &Problem<'_>,
    launch: Launch,
    tiling: &Tiling,
    row_bytes: usize,
    [q, k, v]: [&Tensor; 3],
    [out, lse]: [&mut Tensor; 2],
) -> Result<()> {
    let (table, tiles) = problem.table(ctx, tiling.rows(), false)?;
    // Queries, and stages of keys and values.
    let rows = tiling.rows() + 2 * tiling.stages * tiling.others;
    let launch = launch
        .grid([tiles * problem.heads, 1, 1])
        .block(tiling.threads())
        .shared(rows * row_bytes + tiling.scratch_bytes(q.dtype()));
    let mut args = vec![table.arg()?, q.arg()?, k.arg()?, v.arg()?, out.arg_mut()?, lse.arg_mut()?];
    args.extend(strides(&[q, k, v])?);
    args.extend(problem.numbers(q.shape()[0])?);
    ctx.launch(&launch, &args)
}

fn by_warpgroups(
    ctx: &Context,
    gpu: &Gpu,
    problem: &Problem<'_>,
    launch: Launch,
    shape: &Warpgroups,
    [q, k, v]: [&Tensor; 3],
    [out, lse]: [&mut Tensor; 2],
) -> Result<()> {
    let (table, tiles) = problem.table(ctx, shape.rows(), false)?;
    let blocks = tiles * problem.heads;
    let launch = launch
        .grid([blocks.min(gpu.driver().processors()), 1, 1])
        .block(shape.threads())
        .shared(shape.shared_bytes(problem.dim));
    let map = |tensor: &Tensor, rows: usize| {
        let size = tensor.dtype().size();
        let &[tokens, heads, dim] = tensor.shape() else {
            return Err(Error::shape(Attention::NAME, tensor.shape(), "[tokens, heads, dim]"));
        };
        let map = tensor.tensor_map(
            ctx,
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
    problem.check()?;
    let [q, k, v] = given.inputs.map(|t| operand(ctx, t));
    let (q, k, v, dout) = (q?, k?, v?, operand(ctx, given.dout)?);
    let (dtype, tokens) = (q.dtype(), q.shape()[0]);
    let tensors = [&q, &k, &v, &dout];
    let inputs = Inputs::new(&tensors)?;
    let variant = inputs.variant(problem.wanted(asked))?;
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let mut rows = Tensor::empty(&workspace, &[problem.heads, tokens, 2], DType::F32)?;
    let mut args = vec![given.out.arg()?, dout.arg()?, given.lse.arg()?, rows.arg_mut()?];
    args.extend(strides(&[&dout])?);
    args.extend([Arg::i32(problem.heads)?, Arg::i32(problem.dim)?, Arg::i32(tokens)?]);
    let blocks = (tokens * problem.heads).div_ceil(ROWS_THREADS / inputs.lanes());
    let launch = inputs.rows_launch(&variant.queries).element(dtype.in_kernels(Attention::NAME)?);
    ctx.launch(&launch.grid([blocks, 1, 1]).block(ROWS_THREADS), &args)?;

    let run = |launch: Launch, tiling: &Tiling, of_keys, grads: &mut [&mut Tensor]| {
        let (table, tiles) = problem.table(ctx, tiling.rows(), of_keys)?;
        // The block's own two tiles, stages of two passing ones, and two floats for each of their rows.
        let shared_rows = 2 * tiling.rows() + 2 * tiling.stages * tiling.others;
        let shared = shared_rows * inputs.row_bytes()
            + tiling.stages * tiling.others * 8
            + tiling.scratch_bytes(dtype);
        let heads = if of_keys { problem.key_heads } else { problem.heads };
        let blocks = tiles * heads * tiling.parts;
        let launch = launch.element(dtype.in_kernels(Attention::NAME)?);
        let launch = launch.grid([blocks, 1, 1]).block(tiling.threads()).shared(shared);
        let mut args = vec![table.arg()?, q.arg()?, k.arg()?, v.arg()?, dout.arg()?, rows.arg()?];
        for grad in grads {
            args.push(grad.arg_mut()?);
        }
        args.extend(strides(&tensors)?);
        args.extend(problem.numbers(tokens)?);
        ctx.launch(&launch, &args)
    };
    let [need_q, need_k, need_v] = given.need;
    let mut dq = None;
    if need_q {
        let mut grad = Tensor::empty(ctx, q.shape(), dtype)?;
        run(inputs.queries_launch(&variant.queries), &variant.queries, false, &mut [&mut grad])?;
        dq = Some(grad);
    }
    if !need_k && !need_v {
        return Ok([dq, None, None]);
    }
    // One kernel gives both; what is not wanted is workspace.
    let scope = |wanted: bool| if wanted { ctx.clone() } else { workspace.clone() };
    let mut dk = Tensor::empty(&scope(need_k), k.shape(), dtype)?;
    let mut dv = Tensor::empty(&scope(need_v), v.shape(), dtype)?;
    run(inputs.keys_launch(&variant.keys), &variant.keys, true, &mut [&mut dk, &mut dv])?;
    Ok([dq, need_k.then_some(dk), need_v.then_some(dv)])
}
