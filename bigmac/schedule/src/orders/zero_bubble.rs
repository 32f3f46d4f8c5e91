//! Zero bubble (Qi et al., arXiv 2401.10241): the backward in two halves, of which only the input gradient is waited
//! for by another rank.

use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Chunk, ChunkPlacement, Microbatch, ModuleKind, Op, Phase, Table, Workload};

/// ZB-H1 (section 2.1): 1F1B with the backward split, in 1F1B's memory.
///
/// Stage `s` of `p` runs `p - s` forwards ahead and keeps up to `s` weight gradients for the end: at most `p`
/// microbatches are live, and with W <= F and N >= p equal stages each take N R + (p - 1)(F + B - W) from their first
/// start to their last end. Any costs run; W = F = B is what the order is made for.
pub(crate) const ZB_H1: LlmSchedule = LlmSchedule {
    name: "zb-h1",
    summary: "zero bubble: weight gradients fill the bubble's end; at most p microbatches live",
    chunks: ChunksPerRank::One,
    placement: ChunkPlacement::Loop,
    build: zb_h1,
};

/// ZB-H2 (section 2.2): no bubble where F = B = W, for twice 1F1B's memory.
///
/// Stage `s` of `p` runs `2 (p - s) - 1` forwards ahead and keeps up to `2 s` weight gradients for the end: at most
/// `2 p - 1` microbatches are live, and with W <= F and N >= 2 p - 1 equal stages each take N R + (p - 1)(F + B - 2 W)
/// from their first start to their last end, or N R where F + B < 2 W. Any costs run; W = F = B is what the order is
/// made for.
pub(crate) const ZB_H2: LlmSchedule = LlmSchedule {
    name: "zb-h2",
    summary: "zero bubble: forwards fill the bubble's start too; at most 2p - 1 microbatches live",
    chunks: ChunksPerRank::One,
    placement: ChunkPlacement::Loop,
    build: zb_h2,
};

fn zb_h1(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    let p = workload.ranks();
    let stage = |stage| order(workload, stage, p - stage + options.extra_warmup, stage);
    Ok(Table { ranks: (0..p).map(stage).collect() })
}

fn zb_h2(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    let p = workload.ranks();
    let stage = |stage| order(workload, stage, 2 * (p - stage) - 1 + options.extra_warmup, 2 * stage);
    Ok(Table { ranks: (0..p).map(stage).collect() })
}

/// One stage's ops: `warmup` forwards, then an input gradient and a forward in turns. A weight gradient follows an
/// input gradient only where more than `lag` of them wait; the others run at the end, where the rank would be idle.
/// At most `warmup + lag` microbatches are live.
fn order(workload: &Workload, stage: usize, warmup: usize, lag: usize) -> Vec<Op> {
    let op = |phase, microbatch| Op::llm(Chunk(stage), phase, microbatch);
    let has_backward = |microbatch: &Microbatch| workload.has_backward(ModuleKind::Llm, *microbatch);
    let learns = workload.has_weight_gradient(ModuleKind::Llm);
    let mut forwards = workload.microbatches();
    let mut weights = workload.microbatches().filter(|m| learns && has_backward(m));
    let mut ops: Vec<Op> = forwards.by_ref().take(warmup).map(|m| op(Phase::Forward, m)).collect();
    let mut waiting = 0;
    for microbatch in workload.microbatches() {
        if has_backward(&microbatch) {
            ops.push(op(Phase::BackwardInput, microbatch));
            waiting += 1;
            if waiting > lag {
                ops.extend(weights.next().map(|m| op(Phase::BackwardWeight, m)));
                waiting -= 1;
            }
        }
        ops.extend(forwards.next().map(|m| op(Phase::Forward, m)));
    }
    ops.extend(weights.map(|m| op(Phase::BackwardWeight, m)));
    ops
}
