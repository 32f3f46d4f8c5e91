//! Sums over rows on a GPU.

use super::Terms;
use crate::tiling::{self, ColumnTiles, INCLUDES, pack};
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};

static SOURCE: Source =
    Source { file: "column_sums/kernel.cu", text: include_str!("kernel.cu"), includes: INCLUDES };

/// What the source is compiled as: every kind of term to float sums; where they are rounded hardly matters.
pub(crate) fn programs() -> Vec<Variants> {
    tiling::variants(&SOURCE, |list, dtype| {
        let kinds =
            ColumnTiles::all(dtype).into_iter().flat_map(|tiles| (0..4u32).map(move |kind| (tiles, kind)));
        kinds.fold(list, |list, (tiles, kind)| {
            list.launched(&tiles.over(Launch::new(&SOURCE, "").knob("TERMS", kind).word("OUT", "float")))
        })
    })
}

/// Where sums go: an address, of F32 or BF16, and whether they are added to what is there (F32 alone).
#[derive(Clone, Copy)]
pub(super) struct To {
    pub(super) address: Arg,
    pub(super) dtype: DType,
    pub(super) accumulate: bool,
}

/// The kernel's knob TERMS for [`Terms::Values`].
const VALUES: u32 = 0;

/// A launch over some rows: what is summed into what.
struct Pass {
    kind: u32,
    dtype: DType,
    tiles: ColumnTiles,
    tensors: [Arg; 3],
    /// All rows, those of a strip, and the number of strips.
    rows: [usize; 3],
    width: usize,
    to: To,
}

impl Pass {
    fn run(self, ctx: &Context, op: &'static str) -> Result<()> {
        let (to, [rows, strip, strips]) = (self.to, self.rows);
        let launch = Launch::new(&SOURCE, "column_sums")
            .element(self.dtype.in_kernels(op)?)
            .knob("TERMS", self.kind)
            .word("OUT", if to.dtype == DType::BF16 { "bf16" } else { "float" });
        let launch = self.tiles.over(launch).grid([self.tiles.across, strips, 1]);
        let [dy, x, statistics] = self.tensors;
        let [rows, width, strip] = [Arg::i32(rows)?, Arg::i32(self.width)?, Arg::i32(strip)?];
        let accumulate = Arg::I32(i32::from(to.accumulate));
        ctx.launch(&launch, &[dy, x, statistics, to.address, rows, width, strip, accumulate])
    }
}

/// Strips of rows are summed apart, then their sums: which rows make a strip depends on the shape alone, so the result
/// does.
pub(super) fn sum(
    ctx: &Context,
    op: &'static str,
    dy: &Tensor,
    width: usize,
    terms: Terms<'_>,
    to: To,
) -> Result<()> {
    /// Blocks that fill every multiprocessor of a large GPU; more strips than that would only make more sums.
    const BLOCKS: usize = 1024;
    if width == 0 {
        return Ok(());
    }
    let rows = dy.len() / width;
    let dy_arg = dy.arg()?;
    let (kind, x, statistics) = match terms {
        Terms::Values => (VALUES, Arg::NULL, Arg::NULL),
        Terms::Products(x) => (1, x.arg()?, Arg::NULL),
        Terms::Scaled { x, rstd } => (2, x.arg()?, rstd.arg()?),
        Terms::Normalised { x, statistics } => (3, x.arg()?, statistics.arg()?),
    };
    let tiles = ColumnTiles::new(width, pack(dy.dtype(), width, &[dy_arg, x]), width < 256);
    let wanted = (BLOCKS / tiles.across).clamp(1, rows.div_ceil(tiles.batch()).max(1));
    let strip = rows.div_ceil(wanted).next_multiple_of(tiles.batch());
    let strips = rows.div_ceil(strip.max(1)).max(1);
    let first = |to: To| Pass {
        kind,
        dtype: dy.dtype(),
        tiles,
        tensors: [dy_arg, x, statistics],
        rows: [rows, strip, strips],
        width,
        to,
    };
    if strips == 1 {
        return first(to).run(ctx, op);
    }
    let mut parts = Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[strips, width], DType::F32)?;
    let address = parts.arg_mut()?;
    first(To { address, dtype: DType::F32, accumulate: false }).run(ctx, op)?;
    // The strips' sums are one more matrix, with few rows: narrow tiles spread it over more blocks.
    let tiles = ColumnTiles::new(width, pack(DType::F32, width, &[address]), true);
    let tensors = [address, Arg::NULL, Arg::NULL];
    Pass { kind: VALUES, dtype: DType::F32, tiles, tensors, rows: [strips, strips, 1], width, to }
        .run(ctx, op)
}
