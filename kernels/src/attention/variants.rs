//! Tile shapes of the GPU's kernels: which there are, and which a problem gets.

use bigmac_gpu::Launch;
use bigmac_runtime::DType;
use std::fmt;

/// How one kernel's work is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Warps of a block.
    pub warps: usize,
    /// How many times 16 rows a warp owns.
    pub fragments: usize,
    /// Rows of a tile that passes by.
    pub others: usize,
    /// Passing tiles in flight or in use.
    pub stages: usize,
    /// Blocks that a multiprocessor should hold: the compiler keeps to the registers that this leaves.
    pub blocks: usize,
    /// Blocks that share the columns of a gradient.
    pub parts: usize,
}

impl Tiling {
    /// The largest head size there are kernels for.
    pub const MOST_COLUMNS: usize = 256;

    const fn new(warps: usize, fragments: usize, others: usize, stages: usize, blocks: usize) -> Tiling {
        Tiling { warps, fragments, others, stages, blocks, parts: 1 }
    }

    const fn parts(self, parts: usize) -> Tiling {
        Tiling { parts, ..self }
    }

    /// Rows of a block.
    pub fn rows(&self) -> usize {
        self.warps * self.fragments * 16
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.warps * 32
    }

    /// Bytes in which warps exchange probabilities: `SCRATCH` of `tiles.cuh`, for all rows.
    pub(super) fn scratch_bytes(&self, dtype: DType) -> usize {
        if dtype == DType::F32 { self.rows() * (self.others + 4) * 4 } else { 0 }
    }

    pub(super) fn set(&self, launch: Launch) -> Launch {
        let knobs = [
            ("WARPS", self.warps),
            ("MT", self.fragments),
            ("OTHERS", self.others),
            ("STAGES", self.stages),
            ("BLOCKS", self.blocks),
            ("PARTS", self.parts),
        ];
        knobs.into_iter().fold(launch, |launch, (name, value)| launch.knob(name, value as i64))
    }
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} by {} warps, {} stages", self.rows(), self.others, self.warps, self.stages)?;
        if self.parts > 1 { write!(f, ", columns in {} parts", self.parts) } else { Ok(()) }
    }
}

/// How the forward's work is cut for warpgroups, which a GPU of sm_90a has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warpgroups {
    /// Warpgroups of a block that compute, 64 queries each: 2 or 3. One more loads.
    pub consumers: usize,
    /// Keys of a tile that passes by.
    pub others: usize,
    /// Passing tiles of keys, and of values, in flight or in use.
    pub stages: usize,
}

impl Warpgroups {
    /// Queries of a block.
    pub fn rows(&self) -> usize {
        self.consumers * 64
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        (self.consumers + 1) * 128
    }

    /// Bytes of shared memory: the queries, stages of keys and of values, and their barriers.
    pub(super) fn shared_bytes(&self, dim: usize) -> usize {
        (self.rows() + 2 * self.stages * self.others) * dim * 2 + 16 + 32 * self.stages
    }

    pub(super) fn set(&self, launch: Launch) -> Launch {
        // A multiprocessor has 512 registers for the threads that have the same place in each of four warpgroups of
        // 128.
        let (registers, spare) = if self.consumers == 2 { (224, 56) } else { (160, 32) };
        let knobs = [
            ("OTHERS", self.others),
            ("CONSUMERS", self.consumers),
            ("STAGES", self.stages),
            ("REGISTERS", registers),
            ("SPARE", spare),
        ];
        knobs.into_iter().fold(launch, |launch, (name, value)| launch.knob(name, value as i64))
    }
}

impl fmt::Display for Warpgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} by {} warpgroups, {} stages", self.rows(), self.others, self.consumers, self.stages)
    }
}

/// The form of the forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Every warp loads and multiplies for itself.
    Warps(Tiling),
    /// One warpgroup loads, the others multiply together; where rows can be read 16 bytes at a time.
    Warpgroups(Warpgroups),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Warps(tiling) => tiling.fmt(f),
            Form::Warpgroups(warpgroups) => warpgroups.fmt(f),
        }
    }
}

/// Tile shapes of forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Tiles of queries, which keys pass by.
    pub forward: Form,
    /// The gradients of keys and values: tiles of keys, which queries pass by.
    pub keys: Tiling,
    /// The gradient of queries: tiles of queries, which keys pass by.
    pub queries: Tiling,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Variant { forward, keys, queries } = self;
        write!(f, "forward {forward}; dk and dv {keys}; dq {queries}")
    }
}

// What limits the bf16 kernels is, beside the tensor cores, the 128 bytes that shared memory gives per clock: a product
// of 16x8x16 takes two clocks of an A100 (or some 1.6 of an H100 through mma.sync), and a warp of 16 rows reads 256
// bytes of the passing tile for each; with 32 rows it is 128. So warps have 32 rows wherever their sums fit into 255
// registers a thread: forward up to 128 columns, dq up to 64. dk and dv are two sums, which leaves 16 rows; their
// passing tiles are then wide, so that the fragments of the block's own tiles serve many products. Eight warps to a
// multiprocessor, in two blocks where the shared memory of an A100 (163 KB) has room for two: one computes while the
// other waits at a barrier.
//
// The second variant of each has half as many rows to a block, for problems of few or short sequences.
//
// Warpgroups: at 128 columns two of 64 queries each, whose scores (64 registers), probabilities (32) and output (64)
// leave room for the products of one tile to run beside the exponentials of the next. At 64 columns a tile takes as
// long for its exponentials, 16 per clock, as for its products: three warpgroups in turn keep both busy.
const BF16_64: &[Variant] = &[
    Variant {
        forward: Form::Warps(Tiling::new(4, 2, 64, 2, 2)),
        keys: Tiling::new(4, 1, 64, 2, 2),
        queries: Tiling::new(4, 2, 32, 2, 2),
    },
    Variant {
        forward: Form::Warps(Tiling::new(4, 1, 64, 2, 4)),
        keys: Tiling::new(4, 1, 32, 2, 3),
        queries: Tiling::new(4, 1, 32, 2, 3),
    },
    Variant {
        forward: Form::Warpgroups(Warpgroups { consumers: 3, others: 96, stages: 2 }),
        keys: Tiling::new(4, 1, 64, 2, 2),
        queries: Tiling::new(4, 2, 32, 2, 2),
    },
    Variant {
        forward: Form::Warpgroups(Warpgroups { consumers: 2, others: 128, stages: 2 }),
        keys: Tiling::new(4, 1, 64, 2, 2),
        queries: Tiling::new(4, 2, 32, 2, 2),
    },
];
// Between the tuned sizes a pitch that is not a power of two costs registers.
const BF16_112: &[Variant] = &[
    Variant {
        forward: Form::Warps(Tiling::new(4, 1, 64, 1, 2)),
        keys: Tiling::new(8, 1, 64, 2, 1),
        queries: Tiling::new(8, 1, 64, 2, 1),
    },
    Variant {
        forward: Form::Warps(Tiling::new(4, 1, 32, 2, 2)),
        keys: Tiling::new(4, 1, 32, 2, 2),
        queries: Tiling::new(4, 1, 32, 2, 2),
    },
];
const BF16_128: &[Variant] = &[
    Variant {
        forward: Form::Warps(Tiling::new(4, 2, 64, 1, 2)),
        keys: Tiling::new(8, 1, 64, 2, 1),
        queries: Tiling::new(8, 1, 64, 2, 1),
    },
    Variant {
        forward: Form::Warps(Tiling::new(4, 1, 64, 1, 2)),
        keys: Tiling::new(4, 1, 32, 2, 2),
        queries: Tiling::new(4, 1, 32, 2, 2),
    },
    Variant {
        forward: Form::Warps(Tiling::new(8, 1, 64, 2, 1)),
        keys: Tiling::new(4, 1, 64, 2, 1),
        queries: Tiling::new(4, 1, 64, 2, 2),
    },
    Variant {
        forward: Form::Warpgroups(Warpgroups { consumers: 2, others: 128, stages: 2 }),
        keys: Tiling::new(8, 1, 64, 2, 1),
        queries: Tiling::new(8, 1, 64, 2, 1),
    },
];
const BF16_256: &[Variant] = &[Variant {
    forward: Form::Warps(Tiling::new(4, 1, 64, 1, 1)),
    keys: Tiling::new(4, 1, 32, 2, 1).parts(2),
    queries: Tiling::new(4, 1, 32, 2, 1),
}];
const F32_128: &[Variant] = &[Variant {
    forward: Form::Warps(Tiling::new(4, 1, 32, 1, 2)),
    keys: Tiling::new(4, 1, 32, 2, 1),
    queries: Tiling::new(4, 1, 32, 2, 1),
}];
const F32_256: &[Variant] = &[Variant {
    forward: Form::Warps(Tiling::new(4, 1, 16, 1, 1)),
    keys: Tiling::new(2, 1, 16, 2, 1).parts(2),
    queries: Tiling::new(2, 1, 16, 2, 1).parts(2),
}];

/// The variants of the GPU's kernels for heads of `dim` columns; empty for dtypes and sizes that have none. The first
/// is what a large problem gets, the second, if there is one, a small one; those by warpgroups are for heads of 64 and
/// 128 columns.
pub fn variants(dtype: DType, dim: usize) -> &'static [Variant] {
    match (dtype, dim) {
        (DType::BF16, 64) => BF16_64,
        // What comes after the first two is made, or measured, for the one size.
        (DType::BF16, 0..64) => &BF16_64[..2],
        (DType::BF16, 65..=112) => BF16_112,
        (DType::BF16, 113..128) => &BF16_128[..2],
        (DType::BF16, 128) => BF16_128,
        (DType::BF16, 129..=256) => BF16_256,
        (DType::F32, 0..=128) => F32_128,
        (DType::F32, 129..=256) => F32_256,
        _ => &[],
    }
}
