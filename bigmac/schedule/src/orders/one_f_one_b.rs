//! 1F1B (PipeDream-Flush; Narayanan et al., arXiv 2104.04473): as few forwards ahead as keep the pipeline full.

use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Chunk, ChunkPlacement, Microbatch, ModuleKind, Op, Phase, Table, Workload};

/// Stage `s` of `p` runs `min(p - s - 1, N)` forwards, then pairs of a forward and a backward, then the backwards that
/// are left: at most `p - s` microbatches are live, and equal stages take (N + p - 1)(F + B + W).
pub(crate) const ONE_F_ONE_B: LlmSchedule = LlmSchedule {
    name: "1f1b",
    summary: "one forward, one backward; p - s microbatches live on stage s",
    chunks: ChunksPerRank::One,
    placement: ChunkPlacement::Loop,
    build,
};

fn build(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    let n = workload.len();
    let ranks = (0..workload.ranks()).map(|stage| {
        let warmup = (workload.ranks() - stage - 1 + options.extra_warmup).min(n);
        let forward = |m: usize| Some((Phase::Forward, m));
        let backward =
            |m: usize| workload.has_backward(ModuleKind::Llm, Microbatch(m)).then_some((Phase::Backward, m));
        let ahead = (0..warmup).map(forward);
        let pairs = (warmup..n).flat_map(|m| [forward(m), backward(m - warmup)]);
        let rest = (n - warmup..n).map(backward);
        ahead
            .chain(pairs)
            .chain(rest)
            .flatten()
            .map(|(phase, m)| Op::llm(Chunk(stage), phase, Microbatch(m)))
            .collect()
    });
    Ok(Table { ranks: ranks.collect() })
}
