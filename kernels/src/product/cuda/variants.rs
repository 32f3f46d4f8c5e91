//! The kernels there are, and the rule that picks one.

use super::variant::{Family, Variant};
use super::{Problem, hopper};
use bigmac_runtime::{Context, DType, Error, Result};

/// A variant of `product/kernel.cu`: its number and name, the tile, stages, warps along m and n, blocks to a multiprocessor and rate.
macro_rules! mma {
    ($number:literal, $name:literal, $m:literal x $n:literal x $k:literal, $stages:literal, $warps_m:literal x $warps_n:literal, $resident:literal, $rate:literal) => {
        Variant {
            number: $number,
            name: $name,
            family: Family::Mma,
            knobs: &[
                ("TILE_M", $m),
                ("TILE_N", $n),
                ("TILE_K", $k),
                ("STAGES", $stages),
                ("WARPS_M", $warps_m),
                ("WARPS_N", $warps_n),
            ],
            tile: [$m, $n, $k],
            threads: 32 * $warps_m * $warps_n,
            shared: {
                let (stages, slabs) =
                    ($stages * ($m + $n) * $k * 2, $warps_m * $warps_n * 16 * ($n / $warps_n + 8) * 4);
                if stages > slabs { stages } else { slabs }
            },
            resident: $resident,
            rate: $rate,
        }
    };
}

/// A variant of `product/ffma.cu`: its number and name, warps along m and n, blocks to a multiprocessor and rate.
macro_rules! ffma {
    ($number:literal, $name:literal, $warps_m:literal x $warps_n:literal, $resident:literal, $rate:literal) => {
        Variant {
            number: $number,
            name: $name,
            family: Family::Ffma,
            knobs: &[("WARPS_M", $warps_m), ("WARPS_N", $warps_n), ("BLOCKS", $resident)],
            tile: [32 * $warps_m, 64 * $warps_n, 8],
            threads: 32 * $warps_m * $warps_n,
            shared: 0,
            resident: $resident,
            rate: $rate,
        }
    };
}

const ANYWHERE: [Variant; 13] = [
    mma!(0, "mma 128x256x32", 128 x 256 x 32, 4, 2 x 4, 1, 1.0),
    mma!(1, "mma 256x128x32", 256 x 128 x 32, 4, 4 x 2, 1, 1.0),
    mma!(2, "mma 128x128x32", 128 x 128 x 32, 4, 2 x 2, 2, 0.95),
    mma!(3, "mma 128x128x64", 128 x 128 x 64, 3, 2 x 4, 1, 0.9),
    mma!(4, "mma 128x64x64", 128 x 64 x 64, 3, 2 x 2, 2, 0.8),
    mma!(5, "mma 64x128x64", 64 x 128 x 64, 3, 2 x 2, 2, 0.8),
    mma!(6, "mma 64x64x64", 64 x 64 x 64, 4, 2 x 2, 2, 0.6),
    mma!(7, "mma 32x128x64", 32 x 128 x 64, 4, 1 x 4, 2, 0.5),
    mma!(8, "mma 16x128x64", 16 x 128 x 64, 4, 1 x 4, 2, 0.3),
    ffma!(40, "ffma 128x128x8", 4 x 2, 1, 0.9),
    ffma!(41, "ffma 64x128x8", 2 x 2, 3, 1.0),
    ffma!(42, "ffma 64x64x8", 2 x 1, 6, 0.85),
    Variant {
        number: 60,
        name: "few rows",
        family: Family::FewRows,
        knobs: &[],
        tile: [8, 4, 0],
        threads: 128,
        shared: 0,
        resident: 4,
        rate: 0.1,
    },
];

static VARIANTS: [Variant; ANYWHERE.len() + hopper::VARIANTS.len()] = {
    let mut all = [ANYWHERE[0]; ANYWHERE.len() + hopper::VARIANTS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < ANYWHERE.len() { ANYWHERE[i] } else { hopper::VARIANTS[i - ANYWHERE.len()] };
        i += 1;
    }
    all
};

/// Every kernel, in the order of their numbers.
pub fn variants() -> &'static [Variant] {
    &VARIANTS
}

/// Rows that [`Family::FewRows`] takes.
const FEW: usize = 8;

impl Variant {
    /// True when this kernel can do the problem.
    pub fn takes(&self, ctx: &Context, problem: &Problem<'_>) -> bool {
        match self.family {
            Family::Mma => problem.dtype() == DType::BF16,
            Family::Ffma => problem.dtype() == DType::F32,
            Family::FewRows => problem.m <= FEW && !problem.a.transposed && problem.b.transposed,
            Family::Hopper => hopper::takes(ctx, self, problem),
        }
    }

    /// Seconds to expect of the problem, up to a factor, on a device of so many multiprocessors: rounds of blocks over them, each as
    /// long as its tile is large.
    fn cost(&self, problem: &Problem<'_>, splits: usize, processors: usize) -> f64 {
        /// What filling and draining a block costs, in terms of the sum.
        const OVERHEAD: usize = 160;
        let [tile_m, tile_n, _] = self.tile;
        let tiles = problem.m.div_ceil(tile_m) * problem.n.div_ceil(tile_n);
        let blocks = tiles * problem.batch.count * splits;
        let rounds = blocks.div_ceil(processors);
        let depth = problem.k.div_ceil(splits) + OVERHEAD;
        (rounds * tile_m * tile_n * depth) as f64 / self.rate
    }
}

/// In how many parts the sums over k are cut: few elements with long sums don't fill a device otherwise. A rule on the shape alone, so
/// that the same problem gives the same bits on every device.
pub(super) fn splits(problem: &Problem<'_>) -> usize {
    /// Tiles of 64 x 64 that are enough.
    const ENOUGH: usize = 96;
    /// Blocks to have when they are not: two for each of a large device's multiprocessors.
    const WANTED: usize = 264;
    /// Terms to a part at least, so that adding the parts up costs little.
    const SHORTEST: usize = 512;
    let tiles = problem.m.div_ceil(64) * problem.n.div_ceil(64) * problem.batch.count;
    if tiles == 0 || tiles >= ENOUGH { 1 } else { (WANTED / tiles).min(problem.k / SHORTEST).max(1) }
}

/// The kernel to expect the most of.
///
/// # Errors
/// [`Error::Argument`] when there is none.
pub(super) fn choose(ctx: &Context, problem: &Problem<'_>, splits: usize) -> Result<&'static Variant> {
    let processors = ctx.gpu().map_or(0, |gpu| gpu.driver().processors()).max(1);
    // A replay says nothing of Hopper's speed, so there it is taken where it is asked for.
    let fast = |v: &Variant| {
        v.family != Family::Hopper || ctx.gpu().is_some_and(|gpu| gpu.driver().target() == "sm_90a")
    };
    let takes = || VARIANTS.iter().filter(|v| fast(v) && v.takes(ctx, problem));
    if let Some(few) = takes().find(|v| v.family == Family::FewRows) {
        return Ok(few);
    }
    takes()
        .min_by(|x, y| x.cost(problem, splits, processors).total_cmp(&y.cost(problem, splits, processors)))
        .ok_or_else(|| Error::argument(problem.op, "no kernel multiplies such factors"))
}

/// That `variant` can do the problem.
///
/// # Errors
/// [`Error::Argument`] when it can't.
pub(super) fn check(ctx: &Context, variant: &Variant, problem: &Problem<'_>) -> Result<()> {
    if variant.takes(ctx, problem) {
        return Ok(());
    }
    let Problem { m, n, k, .. } = *problem;
    let stored = |transposed: bool| if transposed { "transposed" } else { "row-major" };
    let message = format!(
        "variant {} ({}) doesn't take a {m} x {k} by {k} x {n} product of {}, first factor {}, second {}; choose another",
        variant.number,
        variant.name,
        problem.dtype(),
        stored(problem.a.transposed),
        stored(problem.b.transposed)
    );
    Err(Error::argument(problem.op, message))
}
