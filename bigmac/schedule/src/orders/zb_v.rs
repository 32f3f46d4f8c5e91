//! ZB-V (Qi et al., arXiv 2401.10241, section 6): zero bubble over chunks that are placed as a V, in 1F1B's memory.

use super::ahead::run_ahead;
use super::v_lane::{Lane, Side};
use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{ChunkPlacement, Op, Table, Workload};

/// Rank `s` of `p` has chunks `s` and `2 p - 1 - s`, so that a microbatch's forward ends where it began and its backward
/// can start there. With equal stages, F = B = W and N >= 2 p a rank takes N R from its first start to its last end,
/// without a bubble, and the step p - 1 forwards of a chunk more; at most `2 p` chunks' activations are live on every
/// rank, which are p microbatches. Any costs and numbers of microbatches run. `group` changes nothing.
pub(crate) const ZB_V: LlmSchedule = LlmSchedule {
    name: "zb-v",
    summary: "zero bubble over 2 chunks per rank in a V; p microbatches live",
    chunks: ChunksPerRank::Two,
    placement: ChunkPlacement::V,
    build,
};

fn build(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    let ranks = (0..workload.ranks()).map(|rank| list(workload, rank)).collect();
    Ok(run_ahead(Table { ranks }, workload, options.extra_warmup))
}

fn list(workload: &Workload, rank: usize) -> Vec<Op> {
    use Side::{Back, There};
    let ahead = workload.ranks() - rank;
    // A step of fewer microbatches than fill the pipeline has the order of one that does, without what it lacks.
    let microbatches = workload.len().max(2 * workload.ranks() - 1);
    let mut lane = Lane::new(workload, rank);
    (0..2 * ahead - 1).for_each(|_| lane.forward(There));
    for _ in 0..rank {
        lane.forward(Back);
        lane.forward(There);
    }
    let turn = |lane: &mut Lane<'_>, side| {
        lane.input(side);
        lane.own_weight(side);
    };
    for _ in 0..ahead {
        lane.forward(Back);
        turn(&mut lane, Back);
    }
    while lane.forwards(There) < microbatches || lane.forwards(Back) < lane.forwards(There) {
        if lane.forwards(There) < microbatches {
            lane.forward(There);
        }
        turn(&mut lane, There);
        lane.forward(Back);
        turn(&mut lane, Back);
    }
    for _ in 0..rank {
        lane.input(There);
        lane.input(Back);
    }
    for _ in 0..ahead {
        lane.input(There);
        lane.own_weight(There);
    }
    while lane.own_weight(Back) {}
    while lane.own_weight(There) {}
    lane.ops
}
