//! What work costs and what learns: the parts that a [`Workload`](crate::step::workload::Workload) is made of.

use thiserror::Error;

/// Time of one encoder or generator item, in the unit of the whole workload (seconds, or any other).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ItemCost {
    /// The forward; a recomputation costs the same.
    pub forward: f64,
    /// The whole backward, as it runs: without weight gradients where the module is frozen.
    pub backward: f64,
}

/// Time of one LLM chunk on one microbatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkCost {
    /// The forward, F; a recomputation costs the same.
    pub forward: f64,
    /// Gradients of inputs, B.
    pub backward_input: f64,
    /// Gradients of weights, W; not counted where the LLM is frozen.
    pub backward_weight: f64,
}

/// One microbatch: its items and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Encoder items (images or tiles); may be empty.
    pub encoder: Vec<ItemCost>,
    /// Generator items (images to be drawn); may be empty.
    pub generator: Vec<ItemCost>,
    /// One cost per LLM chunk, in the order of the chunks.
    pub llm: Vec<ChunkCost>,
}

/// Costs of a whole microbatch when all microbatches are alike, in the notation of the literature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UniformCosts {
    /// Forward of an LLM stage, F (all its chunks together).
    pub forward: f64,
    /// Input gradient of an LLM stage, B.
    pub backward_input: f64,
    /// Weight gradient of an LLM stage, W.
    pub backward_weight: f64,
    /// Encoder forward of a microbatch, E_f.
    pub encoder_forward: f64,
    /// Encoder backward of a microbatch, E_b.
    pub encoder_backward: f64,
    /// Generator forward of a microbatch, G_f.
    pub generator_forward: f64,
    /// Generator backward of a microbatch, G_b.
    pub generator_backward: f64,
}

/// Why a workload is none.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WorkloadError {
    /// Zero ranks, chunks or microbatches.
    #[error("a workload needs at least one {what}, but 0 were given")]
    Empty {
        /// What there is none of.
        what: &'static str,
    },
    /// A microbatch without a cost for every chunk.
    #[error(
        "microbatch {microbatch} has {given} LLM chunk costs where {ranks} ranks x {chunks} chunks per rank need {wanted}"
    )]
    ChunkCosts {
        /// Whose.
        microbatch: usize,
        /// How many were given.
        given: usize,
        /// How many were needed.
        wanted: usize,
        /// Ranks.
        ranks: usize,
        /// Chunks per rank.
        chunks: usize,
    },
    /// A cost that no op can have.
    #[error("{what} is {value}; a time has to be finite and not negative")]
    Cost {
        /// Which cost, in words.
        what: String,
        /// What was given.
        value: f64,
    },
    /// Sizes of something else than the workload.
    #[error(
        "sizes are given for {given} {what} (microbatch {microbatch}), but the workload has {wanted}: give one each"
    )]
    Sizes {
        /// Of what.
        what: &'static str,
        /// In which microbatch.
        microbatch: usize,
        /// How many were given.
        given: usize,
        /// How many were needed.
        wanted: usize,
    },
    /// A slowdown that no rank can have.
    #[error("the slowdown of rank {rank} is {value}; it has to be finite and above 0 (1 is full speed)")]
    Slowdown {
        /// Whose.
        rank: usize,
        /// What was given.
        value: f64,
    },
    /// Not one slowdown per rank.
    #[error("{given} slowdowns were given for {ranks} ranks; give one factor (1 is full speed) per rank")]
    Slowdowns {
        /// How many were given.
        given: usize,
        /// Ranks.
        ranks: usize,
    },
}

pub(crate) fn check_time(what: impl FnOnce() -> String, value: f64) -> Result<(), WorkloadError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(WorkloadError::Cost { what: what(), value }) }
}

pub(crate) fn check_load(m: usize, load: &Load, ranks: usize, chunks: usize) -> Result<(), WorkloadError> {
    let wanted = ranks * chunks;
    if load.llm.len() != wanted {
        return Err(WorkloadError::ChunkCosts {
            microbatch: m,
            given: load.llm.len(),
            wanted,
            ranks,
            chunks,
        });
    }
    for (c, cost) in load.llm.iter().enumerate() {
        for (phase, value) in [("F", cost.forward), ("B", cost.backward_input), ("W", cost.backward_weight)] {
            check_time(|| format!("{phase} of LLM chunk {c} on microbatch {m}"), value)?;
        }
    }
    for (kind, costs) in [("encoder", &load.encoder), ("generator", &load.generator)] {
        for (i, cost) in costs.iter().enumerate() {
            check_time(|| format!("the forward of {kind} item {m}.{i}"), cost.forward)?;
            check_time(|| format!("the backward of {kind} item {m}.{i}"), cost.backward)?;
        }
    }
    Ok(())
}
