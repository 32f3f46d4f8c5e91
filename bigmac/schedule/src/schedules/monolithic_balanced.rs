//! Monolithic with even stages, the strong form of Megatron's layout: the layers of encoder, LLM and generator are one
//! row, cut into stages of equal cost.

use crate::api::{Options, Schedule, ScheduleError};
use crate::schedules::tools::chain::parts_table;
use crate::schedules::tools::cut::balanced_chain;
use crate::step::{Table, Workload};

/// Every rank holds as much of encoder, LLM and generator as every other, in the order of the data. Balanced by the
/// costs of the whole step: microbatches with more images than others still hold up the ranks after the encoder's.
pub(crate) const MONOLITHIC_BALANCED: Schedule = Schedule {
    name: "monolithic-balanced",
    summary: "one chain of all layers, cut into stages of equal cost",
    is_whole: true,
    workload: chain,
    chain_within: None,
    build,
};

fn chain(workload: &Workload) -> Workload {
    // More than one chunk per rank is refused when the table is built.
    if workload.chunks_per_rank() != 1 || workload.chain().is_some() {
        return workload.clone();
    }
    workload.with_chain(balanced_chain(workload))
}

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    parts_table(&MONOLITHIC_BALANCED, workload, options)
}
