//! How kernels cut row-major matrices on a GPU: the knobs of `rows.cuh` and `columns.cuh`.

use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{DType, Result};

/// What sources that include `rows.cuh` or `columns.cuh` include.
pub(crate) const INCLUDES: &[(&str, &str)] = &[
    ("rows.cuh", include_str!("rows.cuh")),
    ("columns.cuh", include_str!("columns.cuh")),
    ("held.cuh", include_str!("held.cuh")),
];

/// Lanes of a warp.
const WARP: usize = 32;

/// Elements to a load: 16 bytes' worth when `width` is a multiple of that and every pointer is aligned to it, else one.
pub(crate) fn pack(dtype: DType, width: usize, pointers: &[Arg]) -> usize {
    let pack = 16 / dtype.size();
    let aligned = pointers.iter().all(|p| !matches!(p, Arg::Pointer(address) if address % 16 != 0));
    if aligned && width.is_multiple_of(pack) { pack } else { 1 }
}

/// One list of variants of a source per element that kernels are compiled for; `add` is given its dtype.
pub(crate) fn variants(source: &'static Source, add: impl Fn(Variants, DType) -> Variants) -> Vec<Variants> {
    let both: [(&'static [&'static str], DType); 2] = [(&["float"], DType::F32), (&["bf16"], DType::BF16)];
    both.map(|(elements, dtype)| add(Variants::new(source).elements(elements), dtype)).into()
}

/// Whole rows to teams of threads, which keep them in registers: see `rows.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowTiles {
    pack: usize,
    team: usize,
    packs: usize,
    rows: usize,
    looped: bool,
}

impl RowTiles {
    /// The tiling of rows of `width` in packs of `pack`. It depends on nothing else, so neither do results.
    pub(crate) fn new(width: usize, pack: usize) -> Self {
        /// Loads that a thread has under way at a time: with fewer the latency of memory shows, and more take
        /// registers.
        const DEPTH: usize = 4;
        /// The largest team: 128 registers to a thread are left.
        const TEAM: usize = 512;
        let most = if pack == 1 { 4 * DEPTH } else { DEPTH };
        let all = width.div_ceil(pack);
        let (team, looped) = match all {
            // Few sizes, so that few kernels are compiled.
            0..=8 => (8, false),
            9..=16 => (16, false),
            _ if all <= WARP * most => (WARP, false),
            _ if all <= TEAM * most => (all.div_ceil(most).next_power_of_two(), false),
            _ => (TEAM, true),
        };
        let packs = match all.div_ceil(team) {
            // Enough teams share a multiprocessor then to have as many loads under way.
            _ if looped => DEPTH / 2,
            packs if pack == 1 => packs.next_power_of_two(),
            packs => packs,
        };
        let rows = if team <= WARP { (DEPTH / packs).max(1) } else { 1 };
        RowTiles { pack, team, packs, rows, looped }
    }

    /// The variants of a source of kernels over rows: at widths of heads and hidden states, and at some that leave rows
    /// unaligned or are too wide to be held.
    pub(crate) fn variants(source: &'static Source) -> Vec<Variants> {
        const WIDTHS: [usize; 14] =
            [64, 128, 512, 1024, 1152, 2560, 4096, 5120, 8192, 16_384, 32_768, 97, 4099, 10_001];
        variants(source, |list, dtype| {
            WIDTHS.into_iter().fold(list, |list, width| {
                let tiles = RowTiles::new(width, pack(dtype, width, &[]));
                list.launched(&tiles.over(Launch::new(source, ""), 1))
            })
        })
    }

    /// The launch of `kernel` over `rows` rows of `width` elements, where `tensors` are what is read and written in
    /// packs; and the kernel's arguments `rows`, `width` and `1 / width`.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::DType`] in the name of `op` unless `dtype` is F32 or BF16.
    pub(crate) fn launch(
        op: &'static str,
        (source, kernel): (&'static Source, &'static str),
        dtype: DType,
        [rows, width]: [usize; 2],
        tensors: &[Arg],
    ) -> Result<(Launch, [Arg; 3])> {
        let tiles = RowTiles::new(width, pack(dtype, width, tensors));
        let launch = tiles.over(Launch::new(source, kernel).element(dtype.in_kernels(op)?), rows);
        Ok((launch, [Arg::i32(rows)?, Arg::i32(width)?, Arg::f32(1.0 / width as f64)]))
    }

    /// The launch with this tiling's knobs and extents, over `rows` rows.
    pub(crate) fn over(self, launch: Launch, rows: usize) -> Launch {
        const BLOCK: usize = 128;
        let block = if self.team > WARP { self.team } else { BLOCK };
        launch
            .knob("VEC", self.pack as u32)
            .knob("TEAM", self.team as u32)
            .knob("PACKS", self.packs as u32)
            .knob("ROWS", self.rows as u32)
            .knob("LOOPED", u32::from(self.looped))
            .grid([rows.div_ceil(block / self.team * self.rows), 1, 1])
            .block(block)
    }
}

/// Columns to threads, which walk down rows: see `columns.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnTiles {
    pack: usize,
    lanes: usize,
    /// Tiles side by side.
    pub(crate) across: usize,
}

impl ColumnTiles {
    const BLOCK: usize = 256;
    const DEPTH: usize = 4;

    /// The tiling of `width` columns in packs of `pack`. Narrow tiles make more blocks, and leave fewer lanes idle
    /// where `width` is small; wide ones read more bytes in a row.
    pub(crate) fn new(width: usize, pack: usize, narrow: bool) -> Self {
        let lanes = if narrow || width <= 8 * pack { 8 } else { WARP };
        ColumnTiles { pack, lanes, across: width.div_ceil(lanes * pack) }
    }

    /// Tilings whose programs differ: narrow and wide, of rows that are aligned and of some that are not.
    pub(crate) fn all(dtype: DType) -> [Self; 3] {
        let whole = pack(dtype, 1024, &[]);
        [(whole, false), (whole, true), (1, false)].map(|(pack, narrow)| Self::new(1024, pack, narrow))
    }

    /// Rows that a block has under way at a time.
    pub(crate) fn batch(self) -> usize {
        Self::DEPTH * Self::BLOCK / self.lanes
    }

    /// The launch with this tiling's knobs and block.
    pub(crate) fn over(self, launch: Launch) -> Launch {
        launch.knob("VEC", self.pack as u32).knob("LANES", self.lanes as u32).block(Self::BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_their_rows() {
        for pack in [1, 4, 8] {
            for width in (1..200).chain([511, 512, 1024, 1152, 4096, 4099, 8192, 16_384, 100_000]) {
                let t = RowTiles::new(width, pack);
                assert!(t.team.is_power_of_two() && t.team <= 512 && t.packs <= 16, "{width} {t:?}");
                assert!(t.rows == 1 || (t.team <= WARP && !t.looped), "{width} {t:?}");
                let held = t.team * t.packs * pack;
                assert_eq!(held >= width, !t.looped, "{width} {t:?}");
                assert!(t.looped || t.packs == 1 || t.packs / 2 * t.team * pack < width, "{width} {t:?}");
                let c = ColumnTiles::new(width, pack, false);
                let covered = c.across * c.lanes * pack;
                assert!(covered >= width && covered - width < c.lanes * pack, "{width} {c:?}");
            }
        }
    }

    #[test]
    fn packs_need_aligned_rows_and_pointers() {
        let at = |address| [Arg::Pointer(256), Arg::Pointer(address), Arg::NULL];
        assert_eq!(pack(DType::BF16, 96, &at(512)), 8);
        assert_eq!(pack(DType::F32, 100, &at(512)), 4);
        assert_eq!(pack(DType::BF16, 100, &at(512)), 1);
        assert_eq!(pack(DType::F32, 96, &at(516)), 1);
    }
}
