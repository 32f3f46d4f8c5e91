//! Monolithic (Megatron-LM): the encoder is part of the first stage, the generator of the last.

use crate::api::{Options, Schedule, ScheduleError};
use crate::schedules::tools::chain::{Stage, stages_table};
use crate::step::{Chunk, Table, Workload};

/// All encoder items of a microbatch run on the first chunk's rank, forward right before that chunk's and backward
/// right after it; all generator items on the last chunk's rank, in the same way at its other end. The first and last
/// rank are slower for it, and every other rank waits for them.
pub(crate) const MONOLITHIC: Schedule = Schedule {
    name: "monolithic",
    summary: "Megatron: encoder inside the first stage, generator inside the last",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let last = workload.last_chunk();
    let stage = |chunk| Stage {
        encoder: (chunk == Chunk(0)).then_some(Chunk(0)),
        llm: Some(chunk),
        generator: (chunk == last).then_some(Chunk(0)),
    };
    let stages: Vec<Stage> = (0..workload.chunks()).map(|c| stage(Chunk(c))).collect();
    stages_table(workload, options, &stages)
}
