//! Where the modules live when encoder, LLM and generator are one chain of parts on ranks of their own.

use std::ops::Range;

use crate::step::table::Rank;

/// A module's consecutive layers on one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
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
    /// The encoder's parts, in the order of its layers.
    pub encoder: Vec<Part>,
    /// The LLM's.
    pub llm: Vec<Part>,
    /// The generator's.
    pub generator: Vec<Part>,
}

/// How many layers the modules have: where a chain may be cut. Embeddings and projections go with the first and last
/// layer; the LLM's output matrix weighs as much as `head` of its layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layers {
    /// The encoder's.
    pub encoder: usize,
    /// The LLM's.
    pub llm: usize,
    /// The generator's.
    pub generator: usize,
    /// Cost of the LLM's output matrix and loss over that of one of its layers.
    pub head: f64,
}
