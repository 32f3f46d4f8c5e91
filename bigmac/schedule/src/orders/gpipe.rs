//! GPipe (Huang et al., arXiv 1811.06965): all forwards, then all backwards.

use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Chunk, ChunkPlacement, Microbatch, ModuleKind, Op, Phase, Table, Workload};

/// Every rank runs all microbatches forward through its first chunk, then through its next, and backward in the reverse
/// order of the chunks (with several chunks: breadth-first, Lamy-Poirier, arXiv 2211.05953). All N microbatches
/// are live at once; equal stages take N R + (p - 1) R / v with R = F + B + W and N >= p. As every forward runs ahead
/// as it is, `extra_warmup` changes nothing; nor does `group`.
pub(crate) const GPIPE: LlmSchedule = LlmSchedule {
    name: "gpipe",
    summary: "all forwards, then all backwards; N microbatches live",
    chunks: ChunksPerRank::Any,
    placement: ChunkPlacement::Loop,
    build,
};

fn build(workload: &Workload, _options: LlmOptions) -> Result<Table, ScheduleError> {
    let ranks = (0..workload.ranks()).map(|rank| {
        let chunks = (rank..workload.chunks()).step_by(workload.ranks()).map(Chunk);
        let learns = |microbatch: &Microbatch| workload.has_backward(ModuleKind::Llm, *microbatch);
        let forwards = chunks
            .clone()
            .flat_map(|chunk| workload.microbatches().map(move |m| Op::llm(chunk, Phase::Forward, m)));
        let backwards = chunks.rev().flat_map(|chunk| {
            workload.microbatches().filter(learns).map(move |m| Op::llm(chunk, Phase::Backward, m))
        });
        forwards.chain(backwards).collect()
    });
    Ok(Table { ranks: ranks.collect() })
}
