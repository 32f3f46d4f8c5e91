//! DualPipeV (DeepSeek's DualPipe, github.com/deepseek-ai/DualPipe; DeepSeek-V3, arXiv 2412.19437, section 3.2.1, cut in
//! half as Sea AI Lab proposed): forwards and backwards overlap, over chunks that are placed as a V.

use super::ahead::run_ahead;
use super::v_lane::{Lane, Side};
use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{ChunkPlacement, Op, Table, Workload};

/// Rank `s` of `p` has chunks `s` and `2 p - 1 - s`. In the steady state it runs a forward of one and a backward of the
/// other at once ([`Op::Overlap`]); around it, backwards are split where their weight gradients fill bubbles. At least
/// `2 p` microbatches; at most `2 p + 1` chunks' activations are live on every rank. With F, B (whole) and W those of a
/// chunk, `F&B` the time of such a pair and equal stages, the rank that has least to do idles for
/// (p - 1)(F&B + B - 3 W) of the step. `group` changes nothing.
pub(crate) const DUALPIPE_V: LlmSchedule = LlmSchedule {
    name: "dualpipe-v",
    summary: "DualPipe over 2 chunks per rank in a V: forwards overlap with backwards; N >= 2p",
    chunks: ChunksPerRank::Two,
    placement: ChunkPlacement::V,
    build,
};

fn build(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    let (ranks, given) = (workload.ranks(), workload.len());
    if given < 2 * ranks {
        return Err(ScheduleError::Microbatches {
            schedule: DUALPIPE_V.name,
            ranks,
            least: 2 * ranks,
            given,
        });
    }
    let table = Table { ranks: (0..ranks).map(|rank| list(workload, rank)).collect() };
    Ok(run_ahead(table, workload, options.extra_warmup))
}

fn list(workload: &Workload, rank: usize) -> Vec<Op> {
    use Side::{Back, There};
    let p = workload.ranks();
    // Ranks between this one and the V's bottom, and those up to it.
    let (below, above) = (p - rank - 1, rank + 1);
    let mut lane = Lane::new(workload, rank);
    (0..2 * below).for_each(|_| lane.forward(There));
    for _ in 0..above {
        lane.forward(There);
        lane.forward(Back);
    }
    for _ in 0..below {
        lane.input(Back);
        lane.weight();
        lane.forward(Back);
    }
    for pair in 0..workload.len() - 2 * p + above {
        if pair == 0 && below == 0 {
            // At the bottom the other chunk's gradient is there already: a pair would hold it up.
            lane.forward(There);
            lane.backward(Back);
        } else {
            lane.overlap(There, Back);
        }
        lane.overlap(Back, There);
    }
    for _ in 0..below {
        lane.backward(Back);
        lane.overlap(Back, There);
    }
    // The second half of the backwards that are left is split: their weight gradients fill the end.
    for pass in 0..2 * above {
        let side = if pass % 2 == 0 { Back } else { There };
        backward(&mut lane, side, pass >= above);
    }
    for _ in 0..below {
        lane.weight();
        lane.input(There);
    }
    (0..above).for_each(|_| lane.weight());
    lane.ops
}

fn backward(lane: &mut Lane<'_>, side: Side, split: bool) {
    if split { lane.input(side) } else { lane.backward(side) }
}
