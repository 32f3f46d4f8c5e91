//! What work costs and what learns: the parts that a [`Workload`](crate::Workload) is made of.

use crate::step::table::{ModuleKind, Phase};
use std::ops::RangeInclusive;
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
    /// Both in one op, BW: often less than B + W, since what both read is read once. A frozen LLM's backward is B.
    pub backward: f64,
}

impl ChunkCost {
    /// A chunk whose whole backward takes as long as its parts.
    pub fn of_parts(forward: f64, backward_input: f64, backward_weight: f64) -> ChunkCost {
        let backward = backward_input + backward_weight;
        ChunkCost { forward, backward_input, backward_weight, backward }
    }

    /// The same with times multiplied.
    pub fn scaled(self, factor: f64) -> ChunkCost {
        ChunkCost {
            forward: self.forward * factor,
            backward_input: self.backward_input * factor,
            backward_weight: self.backward_weight * factor,
            backward: self.backward * factor,
        }
    }

    /// Time of a phase, of an LLM that learns or not.
    pub(crate) fn of(self, phase: Phase, learns: bool) -> f64 {
        match phase {
            Phase::Forward | Phase::Recompute => self.forward,
            Phase::Backward if learns => self.backward,
            Phase::Backward | Phase::BackwardInput => self.backward_input,
            Phase::BackwardWeight => {
                if learns {
                    self.backward_weight
                } else {
                    0.0
                }
            }
        }
    }
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

impl Load {
    /// The items of encoder or generator; none for the LLM.
    pub fn items(&self, kind: ModuleKind) -> &[ItemCost] {
        match kind {
            ModuleKind::Encoder => &self.encoder,
            ModuleKind::Generator => &self.generator,
            ModuleKind::Llm => &[],
        }
    }
}

impl ItemCost {
    /// Time of a phase. An item's backward is not split by cost: its weight gradient is counted as half of it.
    pub(crate) fn of(self, phase: Phase) -> f64 {
        match phase {
            Phase::Forward | Phase::Recompute => self.forward,
            Phase::Backward => self.backward,
            Phase::BackwardInput | Phase::BackwardWeight => self.backward / 2.0,
        }
    }
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
    /// Whole backward of an LLM stage, BW; `None`: B + W.
    pub backward: Option<f64>,
    /// Encoder forward of a microbatch, E_f.
    pub encoder_forward: f64,
    /// Encoder backward of a microbatch, E_b.
    pub encoder_backward: f64,
    /// Generator forward of a microbatch, G_f.
    pub generator_forward: f64,
    /// Generator backward of a microbatch, G_b.
    pub generator_backward: f64,
}

/// The most LLM chunks and items of a step: what every schedule is built and simulated for in seconds.
const MOST_UNITS: usize = 500_000;
/// The most ranks: some of what schedules do is in proportion to the ranks for every unit.
const MOST_RANKS: usize = 2048;
/// Times between these keep their meaning whatever they are added to, multiplied with or divided by.
const TIMES: RangeInclusive<f64> = 1e-100..=1e100;
/// What [`is_time`] asks for, for messages.
pub const TIME: &str = "0, or a number from 1e-100 to 1e100";

/// Why a workload is not valid.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)]
pub enum WorkloadError {
    /// A number that nothing can have.
    #[error("{what} is {given}: it must be {expected}")]
    Value { what: String, given: f64, expected: &'static str },
    /// More or fewer of something than the workload has.
    #[error("expected {expected} {what}, got {given}")]
    Count { what: String, given: usize, expected: usize },
    /// More than a table can hold.
    #[error("a step of {units} LLM chunks and items is too large: at most {MOST_UNITS} are possible")]
    TooLarge { units: usize },
    /// More ranks than schedules are made for.
    #[error("{ranks} ranks are too many: at most {MOST_RANKS} are possible")]
    TooManyRanks { ranks: usize },
}

/// Checks the size of a step before anything is made for it: `units` is the number of LLM chunks and items of all
/// microbatches together.
///
/// # Errors
/// Where a number is 0, or there are too many units.
pub fn check_extent(
    ranks: usize,
    chunks: usize,
    microbatches: usize,
    units: usize,
) -> Result<(), WorkloadError> {
    for (what, count) in [("ranks", ranks), ("chunks per rank", chunks), ("microbatches", microbatches)] {
        if count == 0 {
            let what = format!("the number of {what}");
            return Err(WorkloadError::Value { what, given: 0.0, expected: "at least 1" });
        }
    }
    if units > MOST_UNITS {
        return Err(WorkloadError::TooLarge { units });
    }
    if ranks > MOST_RANKS { Err(WorkloadError::TooManyRanks { ranks }) } else { Ok(()) }
}

/// Whether a number can be a time: sums over a whole step are finite, and nothing is lost that is not 0.
pub fn is_time(given: f64) -> bool {
    given == 0.0 || TIMES.contains(&given)
}

pub(crate) fn check_time(what: impl FnOnce() -> String, given: f64) -> Result<(), WorkloadError> {
    if is_time(given) { Ok(()) } else { Err(WorkloadError::Value { what: what(), given, expected: TIME }) }
}

pub(crate) fn check_load(m: usize, load: &Load, ranks: usize, chunks: usize) -> Result<(), WorkloadError> {
    let wanted = ranks * chunks;
    if load.llm.len() != wanted {
        let what = format!("LLM chunk costs ({ranks} ranks x {chunks} chunks) of microbatch {m}");
        return Err(WorkloadError::Count { what, given: load.llm.len(), expected: wanted });
    }
    for (c, cost) in load.llm.iter().enumerate() {
        let [f, b, w] = [cost.forward, cost.backward_input, cost.backward_weight];
        for (phase, value) in [("F", f), ("B", b), ("W", w), ("BW", cost.backward)] {
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
