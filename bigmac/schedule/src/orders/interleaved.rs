//! Interleaved 1F1B (Megatron-LM; Narayanan et al., arXiv 2104.04473, section 2.2): several chunks per rank, so that
//! the pipeline fills and drains in steps of a chunk.

use super::ONE_F_ONE_B;
use crate::api::{ChunksPerRank, LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Chunk, ChunkPlacement, Microbatch, ModuleKind, Op, Phase, Table, Workload, even_ranges};

/// With v chunks per rank and groups of g microbatches, a rank runs a group through its first chunk, then through its
/// next, and so on, backward through the chunks in reverse. Stage `s` runs `2 (p - s - 1) + (v - 1) g` chunk forwards
/// ahead, then a forward and a backward in turns: at most `[2 (p - 1 - s) + (v - 1) g + 1] / v` microbatches are live,
/// and equal stages take N R + (p - 1) R / v with R = F + B + W and N >= p. One chunk per rank is [`ONE_F_ONE_B`].
///
/// Megatron-LM asks for groups of at least p microbatches, the last one included: a smaller one comes round to a rank's
/// next chunk before that can run. So without [`LlmOptions::group`] the microbatches are divided as evenly as they
/// allow into the most groups of at least p, which are groups of p where N is a multiple of it. With it, groups have
/// just that size, the last one what is left, and any size runs ([`Lists`]), if slowly below p.
pub(crate) const INTERLEAVED: LlmSchedule = LlmSchedule {
    name: "interleaved",
    summary: "1F1B over v chunks per rank; a v-th of its bubble",
    chunks: ChunksPerRank::Any,
    placement: ChunkPlacement::Loop,
    build,
};

fn build(workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
    if workload.chunks_per_rank() == 1 {
        return ONE_F_ONE_B.build(workload, options);
    }
    if options.group == Some(0) {
        return Err(ScheduleError::Group { of: "LLM " });
    }
    Ok(Lists::new(workload, options).run())
}

/// The sizes of the groups.
fn groups(n: usize, p: usize, group: Option<usize>) -> Vec<usize> {
    match group {
        Some(group) => (0..n).step_by(group).map(|start| group.min(n - start)).collect(),
        None => {
            let count = (n / p).max(1);
            even_ranges(n, count).into_iter().map(|range| range.len()).collect()
        }
    }
}

/// One of a rank's chunks on a microbatch, as it stands in the forward or in the backward order of all ranks.
#[derive(Clone, Copy)]
struct Turn {
    /// Which of the rank's chunks, from 0.
    local: usize,
    microbatch: Microbatch,
    /// Position of its forward in the forward order.
    forward: usize,
    /// How far back in the order the same microbatch has the chunk before: the size of its group.
    group: usize,
}

/// All ranks' lists while they are written.
///
/// Forwards come in one order on every rank, and so do backwards; a rank only chooses which of the two is next. By
/// Megatron's rule that can end in a circle where groups are smaller than p: rank 0 waits to run a chunk forward that
/// the last rank reaches only after a backward that waits for one of rank 0's. So the lists are written in step, each
/// op once what it reads has been made, and where no rank can follow the rule, one runs the other kind of op first:
/// a backward if any can, which frees memory. There always is one: the remaining forward that comes first in the
/// order, on the lowest rank, or the remaining backward that comes first, on the highest.
struct Lists<'a> {
    workload: &'a Workload,
    /// Chunk forwards that the last rank runs ahead.
    warmup: usize,
    /// By [`Direction`].
    orders: [Vec<Turn>; 2],
    /// By rank and [`Direction`]: how far the rank is.
    done: Vec<[usize; 2]>,
    table: Table,
}

/// Which of the two orders.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

impl<'a> Lists<'a> {
    fn new(workload: &'a Workload, options: LlmOptions) -> Self {
        let (p, v) = (workload.ranks(), workload.chunks_per_rank());
        let groups = groups(workload.len(), p, options.group);
        let group = options.group.unwrap_or_else(|| groups.iter().fold(p, |most, group| most.max(*group)));
        Lists {
            workload,
            warmup: (v - 1).saturating_mul(group).saturating_add(options.extra_warmup),
            orders: [order(&groups, v, 0..v), order(&groups, v, (0..v).rev())],
            done: vec![[0; 2]; p],
            table: Table::empty(p),
        }
    }

    fn run(mut self) -> Table {
        loop {
            let mut moved = false;
            for rank in 0..self.done.len() {
                while self.step(rank, self.wanted(rank)) {
                    moved = true;
                }
            }
            let mut try_all = |way| (0..self.done.len()).any(|rank| self.step(rank, way));
            if !moved && !try_all(Direction::Backward) && !try_all(Direction::Forward) {
                return self.table;
            }
        }
    }

    /// What Megatron's rule says the rank runs next.
    fn wanted(&self, rank: usize) -> Direction {
        let ahead = 2 * (self.done.len() - rank - 1) + self.warmup;
        let [forwards, backwards] = self.done[rank];
        let forward =
            forwards < self.orders[Direction::Forward as usize].len() && forwards <= ahead + backwards;
        if forward { Direction::Forward } else { Direction::Backward }
    }

    /// Adds the rank's next op of this kind to its list; false where what it reads has not been made.
    fn step(&mut self, rank: usize, way: Direction) -> bool {
        let (last, top) = (self.done.len() - 1, self.workload.chunks_per_rank() - 1);
        let made = |rank: usize| self.done[rank][way as usize];
        let Some(turn) = self.orders[way as usize].get(made(rank)).copied() else { return false };
        // A chunk's neighbour is on the next rank; over the edge, one place further on the rank at the other end.
        let (edge, other_end, neighbour, starts) = match way {
            Direction::Forward => (0, last, rank.saturating_sub(1), turn.local == 0),
            Direction::Backward => (last, 0, rank + 1, turn.local == top),
        };
        let ready = match rank == edge {
            true => starts || made(other_end) + turn.group > made(rank),
            false => made(neighbour) > made(rank),
        };
        if !ready
            || (way == Direction::Backward && self.done[rank][Direction::Forward as usize] <= turn.forward)
        {
            return false;
        }
        self.done[rank][way as usize] += 1;
        if way == Direction::Forward || self.workload.has_backward(ModuleKind::Llm, turn.microbatch) {
            let phase = if way == Direction::Forward { Phase::Forward } else { Phase::Backward };
            let chunk = Chunk(turn.local * self.done.len() + rank);
            self.table.ranks[rank].push(Op::llm(chunk, phase, turn.microbatch));
        }
        true
    }
}

/// Every group of microbatches through the chunks in this order.
fn order(groups: &[usize], v: usize, locals: impl Iterator<Item = usize> + Clone) -> Vec<Turn> {
    let starts = groups.iter().scan(0, |next, group| {
        *next += group;
        Some((*next - group, *group))
    });
    starts
        .flat_map(|(start, group)| {
            locals.clone().flat_map(move |local| {
                (0..group).map(move |i| Turn {
                    local,
                    microbatch: Microbatch(start + i),
                    forward: start * v + local * group + i,
                    group,
                })
            })
        })
        .collect()
}
