//! What the zero-bubble orders have in common (Qi et al., arXiv 2401.10241): the backward in two halves, of which only
//! the input gradient is waited for by another rank.

use crate::step::{Chunk, Microbatch, ModuleKind, Op, Phase, Workload};

/// One stage's ops: `warmup` forwards, then an input gradient and a forward in turns. A weight gradient follows an
/// input gradient only where more than `lag` of them wait; the others run at the end, where the rank would be idle.
/// At most `warmup + lag` microbatches are live.
pub(super) fn order(workload: &Workload, stage: usize, warmup: usize, lag: usize) -> Vec<Op> {
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
