//! Monolithic with even stages, the strong form of Megatron's layout: the layers of encoder, LLM and generator are one row,
//! cut into stages of equal cost.

use crate::api::{Options, Schedule, ScheduleError};
use crate::schedules::tools::chain::{Stage, chain_table};
use crate::schedules::tools::cut::balanced_chain;
use crate::step::{Chunk, PerModule, Rank, Table, Workload};

/// Every rank holds as much of encoder, LLM and generator as every other, in the order of the data. Balanced by the costs of
/// the whole step: microbatches with more images than others still hold up the ranks behind the encoder's.
#[derive(Debug)]
pub struct MonolithicBalanced;

impl Schedule for MonolithicBalanced {
    fn name(&self) -> &'static str {
        "monolithic-balanced"
    }

    fn summary(&self) -> &'static str {
        "one chain of all layers, cut into stages of equal cost"
    }

    fn workload(&self, workload: &Workload) -> Workload {
        // More than one chunk per rank is refused when the table is built.
        if workload.chunks_per_rank() != 1 || workload.chain().is_some() {
            return workload.clone();
        }
        workload.with_chain(balanced_chain(workload))
    }

    fn build(&self, workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
        build(self.name(), workload, options)
    }
}

/// The table of a workload whose modules are one chain.
pub(crate) fn build(
    schedule: &'static str,
    workload: &Workload,
    options: &Options,
) -> Result<Table, ScheduleError> {
    let chunks = workload.chunks_per_rank();
    if chunks != 1 {
        return Err(ScheduleError::Chunks { schedule, chunks });
    }
    let chain = workload.chain().ok_or(ScheduleError::NoChain { schedule })?;
    let stage = |rank| {
        PerModule::from_fn(|kind| {
            chain.parts[kind].iter().position(|part| part.rank == Rank(rank)).map(Chunk)
        })
    };
    let stages: Vec<Stage> = (0..chain.ranks).map(stage).collect();
    chain_table(workload, options, &stages)
}
