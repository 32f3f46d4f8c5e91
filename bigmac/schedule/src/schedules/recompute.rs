//! Recompute (the decoupled encoder of Kimi K2.5, arXiv 2602.02276, section 4.5): phased, with encoder forwards that
//! save nothing and run again before their backwards.

use crate::api::{Options, Schedule, ScheduleError};
use crate::schedules::phased::PHASED;
use crate::step::{ModuleKind, Op, Phase, Table, Work, Workload};

/// `phased` with the encoder's activations freed at once: memory is that of one microbatch's share and the embeddings
/// that wait on the first rank, for the time of another encoder forward.
pub(crate) const RECOMPUTE: Schedule = Schedule {
    name: "recompute",
    summary: "phased, with the encoder's forwards run again before their backwards: less memory, more work",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let mut table = PHASED.build(workload, options)?;
    for ops in &mut table.ranks {
        *ops = std::mem::take(ops).into_iter().flat_map(with_recomputation).collect();
    }
    Ok(table)
}

fn with_recomputation(op: Op) -> Vec<Op> {
    match &op {
        Op::Compute { module, phase: Phase::Backward, work: Work::Items(items) }
            if module.kind() == ModuleKind::Encoder =>
        {
            let again =
                Op::Compute { module: *module, phase: Phase::Recompute, work: Work::Items(items.clone()) };
            vec![again, op]
        }
        _ => vec![op],
    }
}
