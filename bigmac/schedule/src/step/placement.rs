//! Where the modules live: the LLM's chunks on the ranks that share them, or, where encoder, LLM and generator are one
//! chain, all parts on ranks of their own.

use crate::step::per_module::PerModule;
use crate::step::table::{Chunk, Rank};
use std::ops::Range;

/// Which ranks the LLM's chunks live on, in the order of their layers. With one chunk per rank all placements are the
/// same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkPlacement {
    /// Round and round: chunk `c` on rank `c % p`.
    #[default]
    Loop,
    /// There and back (Zero Bubble, arXiv 2401.10241, section 6): with two chunks per rank, rank `s` has chunks `s` and
    /// `2 p - 1 - s`, so that the first rank has the last chunk too. Every further round turns again.
    V,
}

impl ChunkPlacement {
    /// The rank that a chunk lives on, of `ranks` (at least 1).
    pub fn rank_of(self, chunk: Chunk, ranks: usize) -> Rank {
        let ranks = ranks.max(1);
        let (round, place) = (chunk.0 / ranks, chunk.0 % ranks);
        match self {
            ChunkPlacement::V if round % 2 == 1 => Rank(ranks - 1 - place),
            ChunkPlacement::Loop | ChunkPlacement::V => Rank(place),
        }
    }
}

/// A module's consecutive layers on one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainPart {
    /// Where it lives.
    pub rank: Rank,
    /// Its share of the module's cost and of what the module saves.
    pub share: f64,
    /// Which of the module's layers it is, where their number is known.
    pub layers: Option<Range<usize>>,
}

/// Encoder, LLM and generator cut into parts: part `c` of a module is its `Chunk(c)`. A module without work has no
/// parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    /// How many ranks there are.
    pub ranks: usize,
    /// By module, in the order of the layers.
    pub parts: PerModule<Vec<ChainPart>>,
}

/// How many layers the modules have: where a chain may be cut. Embeddings and projections go with the first and last
/// layer; the LLM's output matrix weighs as much as `head` of its layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layers {
    /// Layers of each module.
    pub count: PerModule<usize>,
    /// Cost of the LLM's output matrix and loss over that of one of its layers.
    pub head: f64,
}

/// Ranges of `all` things in `count` parts, as even as they allow: the first ones are longer where they differ.
pub fn even_ranges(all: usize, count: usize) -> Vec<Range<usize>> {
    let (each, extra) = (all / count.max(1), all % count.max(1));
    let start = |part: usize| part * each + part.min(extra);
    (0..count).map(|part| start(part)..start(part + 1)).collect()
}
