//! The kernels there are, and the rule that picks one.

use super::facts::{Chip, Facts};
use super::variant::{Family, Variant};
use super::{Problem, hopper};
use bigmac_runtime::{Context, DType, Error, Result};

/// A variant of `product/kernel.cu`: its number and name, the tile, stages, warps along m and n, blocks to a
/// multiprocessor and rate.
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
    /// True when this kernel can do the problem; false too when its tensors have no addresses.
    pub fn takes(&self, ctx: &Context, problem: &Problem<'_>) -> bool {
        Facts::of(problem).is_ok_and(|facts| self.fits(Chip::of(ctx), &facts))
    }

    /// True when this kernel can do such a problem on such a device.
    pub(super) fn fits(&self, chip: Chip<'_>, facts: &Facts) -> bool {
        match self.family {
            Family::Mma => facts.dtype == DType::BF16,
            Family::Ffma => facts.dtype == DType::F32,
            Family::FewRows => facts.extents[0] <= FEW && facts.form.transposed == [false, true],
            Family::Hopper => hopper::takes(self, chip, facts),
        }
    }

    /// Seconds to expect of the problem, up to a factor: rounds of clusters over the multiprocessors, each as long as a
    /// block's products take, or its loads. A cluster that reaches past the last row or column takes its
    /// multiprocessors all the same.
    fn cost(&self, chip: Chip<'_>, facts: &Facts, splits: usize) -> f64 {
        /// What filling and draining a block costs, in terms of the sum.
        const OVERHEAD: usize = 160;
        /// What a line of a tile costs on Hopper when all multiprocessors load, in elements of a tile at rate 1: about
        /// 6.5 TB/s of the L2 cache beside 440 TFLOP/s. So a tile of 128x128 that is loaded alone does not go beyond 1.
        const LINE: f64 = 66.0;
        let ([m, n, k], [tile_m, tile_n, _]) = (facts.extents, self.tile);
        let [cluster_m, cluster_n] = self.cluster();
        let tiles = m.div_ceil(tile_m * cluster_m) * n.div_ceil(tile_n * cluster_n);
        let clusters = tiles * facts.count * splits;
        let at_once = (chip.processors / (cluster_m * cluster_n)).max(1);
        let steps = clusters.div_ceil(at_once) * (k.div_ceil(splits) + OVERHEAD);
        let products = (steps * tile_m * tile_n) as f64 / self.rate;
        if chip.target != "sm_90a" {
            return products;
        }
        // Of the factor that a cluster has in common, each block loads its share.
        let lines = tile_m / cluster_n + tile_n / cluster_m;
        let busy = (clusters.min(at_once) * cluster_m * cluster_n) as f64 / chip.processors as f64;
        products.max((steps * lines) as f64 * LINE * busy)
    }
}

/// In how many parts the sums over k are cut: few elements with long sums do not fill a device otherwise. A rule on the
/// shape alone, so that the same problem gives the same bits on every device.
pub(super) fn splits(problem: &Problem<'_>) -> usize {
    parts([problem.m, problem.n, problem.k], problem.batch.count)
}

/// The rule of [`splits`], for `count` products of m x n elements of k terms.
pub(super) fn parts([m, n, k]: [usize; 3], count: usize) -> usize {
    /// Tiles of 64 x 64 that are enough.
    const ENOUGH: usize = 96;
    /// Blocks to have when they are not: two for each of a large device's multiprocessors.
    const WANTED: usize = 264;
    /// Terms to a part at least, so that adding the parts up costs little.
    const SHORTEST: usize = 512;
    let tiles = m.div_ceil(64) * n.div_ceil(64) * count;
    if tiles == 0 || tiles >= ENOUGH { 1 } else { (WANTED / tiles).min(k / SHORTEST).max(1) }
}

/// The kernel to expect the most of.
///
/// # Errors
/// [`Error::Argument`] when there is none; as [`Facts::of`].
pub(super) fn choose(ctx: &Context, problem: &Problem<'_>, splits: usize) -> Result<&'static Variant> {
    fastest(Chip::of(ctx), &Facts::of(problem)?, splits)
        .ok_or_else(|| Error::argument(problem.op, "no kernel multiplies these factors"))
}

/// The rule of [`choose`], for what it goes by.
pub(super) fn fastest(chip: Chip<'_>, facts: &Facts, splits: usize) -> Option<&'static Variant> {
    // A replay says nothing of Hopper's speed, so there it is taken where it is asked for.
    let fast = |v: &Variant| v.family != Family::Hopper || chip.target == "sm_90a";
    let fitting = || VARIANTS.iter().filter(|v| fast(v) && v.fits(chip, facts));
    let cost = |v: &Variant| v.cost(chip, facts, splits);
    let by_cost = || fitting().min_by(|x, y| cost(x).total_cmp(&cost(y)));
    fitting().find(|v| v.family == Family::FewRows).or_else(by_cost)
}

/// That `variant` can do the problem.
///
/// # Errors
/// [`Error::Argument`] when it cannot.
pub(super) fn check(ctx: &Context, variant: &Variant, problem: &Problem<'_>) -> Result<()> {
    if variant.takes(ctx, problem) {
        return Ok(());
    }
    let Problem { m, n, k, .. } = *problem;
    let stored = |transposed: bool| if transposed { "transposed" } else { "row-major" };
    let message = format!(
        "variant {} ({}) does not take a {m} x {k} by {k} x {n} product of {}, first factor {}, second {}; choose another",
        variant.number,
        variant.name,
        problem.dtype(),
        stored(problem.a.transposed),
        stored(problem.b.transposed)
    );
    Err(Error::argument(problem.op, message))
}
