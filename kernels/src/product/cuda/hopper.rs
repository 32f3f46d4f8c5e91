//! Hopper's own kernel: what it takes, and its launch.

use super::facts::{Chip, Facts};
use super::finish::{Finish, Target};
use super::form::Form;
use super::variant::{Family, Variant};
use super::{Activation, Factor, Problem};
use bigmac_gpu::{Arg, Launch, Swizzle, TensorMap, TensorMapShape};
use bigmac_runtime::{Context, DType, Error, Result};

/// Terms of the sum to a stage: a line of the 128-byte swizzle, in which all tiles lie.
const TILE_K: usize = 64;
/// Bytes of a line.
const LINE: usize = 128;
/// A loading and two computing warpgroups.
const THREADS: usize = 384;
/// Lines of c that a computing warpgroup stores at a time.
const STORE_LINES: usize = 64;
/// Bytes of c on their way out: two stores for each computing warpgroup.
const STORES: usize = 2 * 2 * STORE_LINES * LINE;

/// A variant of `product/hopper.cu`: its number and name, the tile, stages, blocks of a cluster along m and n, rows of
/// clusters to a band, and rate.
macro_rules! hopper {
    ($number:literal, $name:literal, $m:literal x $n:literal, $stages:literal, $cluster_m:literal x $cluster_n:literal, $band:literal, $rate:literal) => {
        Variant {
            number: $number,
            name: $name,
            family: Family::Hopper,
            knobs: &[
                ("TILE_M", $m),
                ("TILE_N", $n),
                ("STAGES", $stages),
                ("CLUSTER_M", $cluster_m),
                ("CLUSTER_N", $cluster_n),
                ("BAND", $band),
            ],
            tile: [$m, $n, TILE_K],
            threads: THREADS,
            shared: $stages * ($m + $n) * LINE + STORES + 16 * $stages,
            resident: 1,
            rate: $rate,
        }
    };
}

/// Rates beside those of mma.sync, which reaches three fifths of what wgmma does: those of the products alone, since
/// the choice counts loads beside them. Estimates, until they are measured. Bands are such that about as many rows of c
/// as columns are under way on 132 multiprocessors.
///
/// A pair shares the larger factor of its tiles: b of 128x256, a of 256x128. Pairs of 128x128 could share either; they
/// share a, as two tiles side by side suit a width, mostly a multiple of 256, and tokens end anywhere. Number 106 is
/// not to be used again: it was pairs of 256x128 that shared b.
pub(super) const VARIANTS: [Variant; 8] = [
    hopper!(100, "hopper 128x256x64", 128 x 256, 4, 1 x 1, 16, 1.55),
    hopper!(101, "hopper 256x128x64", 256 x 128, 4, 1 x 1, 8, 1.5),
    hopper!(102, "hopper 128x128x64", 128 x 128, 6, 1 x 1, 12, 1.35),
    hopper!(103, "hopper 128x192x64", 128 x 192, 4, 1 x 1, 14, 1.45),
    hopper!(104, "hopper 128x64x64", 128 x 64, 8, 1 x 1, 8, 1.0),
    hopper!(105, "hopper pairs 128x256x64", 128 x 256, 4, 2 x 1, 8, 1.6),
    hopper!(107, "hopper pairs 256x128x64", 256 x 128, 4, 1 x 2, 8, 1.55),
    hopper!(108, "hopper pairs 128x128x64", 128 x 128, 6, 1 x 2, 12, 1.35),
];

/// True when `variant` can do the problem, on Hopper or in replay: bf16, lines and matrices that start at multiples of
/// 16 bytes, an even number of columns, each matrix of a batch in its own place; and what has no room for GELU's error
/// function beside the sums.
pub(super) fn takes(variant: &Variant, chip: Chip<'_>, facts: &Facts) -> bool {
    let [_, n, k] = facts.extents;
    let Form { aligned, out, activation, .. } = facts.form;
    // Columns of the product that a store takes side by side.
    let sums = LINE / out.size() * if activation == Activation::SiluGate { 2 } else { 1 };
    ["sm_90a", "replay"].contains(&chip.target)
        && facts.dtype == DType::BF16
        && k > 0
        && n.is_multiple_of(2)
        && variant.tile[1].is_multiple_of(sums)
        && activation != Activation::GeluExact
        && aligned
        && facts.addressable
}

/// `lines` lines of `len` elements, in each of `count` matrices, as a tensor map takes them.
struct Lines {
    address: Arg,
    size: usize,
    len: usize,
    lines: usize,
    count: usize,
    leading: usize,
    stride: usize,
}

impl Lines {
    /// A factor; its matrices are `stride` elements apart.
    fn of(factor: &Factor<'_>, count: usize, stride: usize) -> Result<Lines> {
        let Factor { tensor, offset, rows, cols, leading, transposed } = *factor;
        let (lines, len) = if transposed { (cols, rows) } else { (rows, cols) };
        Ok(Lines {
            address: tensor.arg_at(offset)?,
            size: tensor.dtype().size(),
            len,
            lines,
            count,
            leading,
            stride,
        })
    }

    /// In tiles of 128 bytes by `height` lines.
    fn map(&self, ctx: &Context, op: &'static str, height: usize) -> Result<TensorMap> {
        let Arg::Pointer(address) = self.address else {
            return Err(Error::argument(op, "a matrix has no address"));
        };
        let Some(gpu) = ctx.gpu() else {
            return Err(Error::argument(op, "tensor maps are made on a GPU"));
        };
        // Of a single line or matrix the stride is not used, but has to be one that is allowed.
        let stride = |elements: usize, count: usize| {
            let bytes = elements * self.size;
            if count > 1 { bytes } else { bytes.next_multiple_of(16).max(16) }
        };
        let shape = TensorMapShape {
            element: self.size as u32,
            extents: [self.len, self.lines, self.count].map(|e| e as u64).to_vec(),
            strides: vec![stride(self.leading, self.lines) as u64, stride(self.stride, self.count) as u64],
            tile: vec![(LINE / self.size) as u32, height as u32, 1],
            swizzle: Swizzle::Bytes128,
        };
        Ok(gpu.tensor_map(address, &shape)?)
    }
}

/// Runs `variant`, whose knobs `launch` has: a block to each multiprocessor, whose cluster goes through its share of
/// the tiles.
///
/// # Errors
/// Those of describing the matrices and of launching.
pub(super) fn run(
    ctx: &Context,
    variant: &Variant,
    launch: Launch,
    problem: &Problem<'_>,
    finish: &Finish,
    target: &Target,
) -> Result<()> {
    let Problem { op, m, n, k, batch, ref a, ref b, .. } = *problem;
    let [tile_m, tile_n, _] = variant.tile;
    let [cluster_m, cluster_n] = variant.cluster();
    let cluster = cluster_m * cluster_n;
    let tiles = m.div_ceil(tile_m * cluster_m) * n.div_ceil(tile_n * cluster_n) * batch.count * target.splits;
    let clusters = tiles.min((Chip::of(ctx).processors / cluster).max(1));

    // Of the factor that a cluster has in common, each block loads its share.
    let (a_lines, b_lines) = (tile_m / cluster_n, tile_n / cluster_m);
    let height = |along_k: bool, lines: usize| if along_k { lines } else { TILE_K };
    let a_map = Lines::of(a, batch.count, batch.a)?.map(ctx, op, height(!a.transposed, a_lines))?;
    let b_map = Lines::of(b, batch.count, batch.b)?.map(ctx, op, height(b.transposed, b_lines))?;
    let c = Lines {
        address: target.c,
        size: target.dtype.size(),
        len: target.columns,
        lines: m,
        count: batch.count * target.splits,
        leading: target.leading,
        stride: target.stride,
    };
    let launch = launch
        .grid([clusters * cluster, 1, 1])
        .block(variant.threads)
        .cluster(cluster)
        .shared(variant.shared);
    let args = [
        Arg::Map(a_map),
        Arg::Map(b_map),
        Arg::Map(c.map(ctx, op, STORE_LINES)?),
        finish.bias,
        finish.residual,
        Arg::i32(m)?,
        Arg::i32(n)?,
        Arg::i32(k)?,
        Arg::i32(batch.count)?,
        Arg::i32(target.splits)?,
        Arg::i32(target.per_split)?,
        finish.alpha,
        finish.flags,
    ];
    ctx.launch(&launch, &args)
}
