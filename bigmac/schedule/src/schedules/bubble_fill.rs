//! Bubble filling (Optimus, arXiv 2408.03505): phased, with encoder work moved into the idle times of the LLM.

use crate::api::{Options, Schedule, ScheduleError};
use crate::clock::{Gaps, Simulation, Slot, share_out};
use crate::schedules::phased::{self, PHASED, body};
use crate::step::{Chunk, Item, Module, ModuleKind, Op, Phase, Rank, Table, Unit, Value, Workload};

/// As in `phased`, encoder items run on all ranks, before and after the LLM; those that fit into idle times of the
/// LLM's own schedule, before their embeddings are read or after the gradients are there, run in them instead. Nothing
/// that the LLM does is moved, so the time lies between the LLM's (or the work bound) and T_ideal; as forwards still
/// run ahead, the encoder's activations grow with the batch.
pub(crate) const BUBBLE_FILL: Schedule = Schedule {
    name: "bubble-fill",
    summary: "Optimus: phased, with encoder work in the LLM's bubbles; memory grows with the batch",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let phased = PHASED.build(workload, options)?;
    let table = body(workload, options)?;
    let alone = workload.without(ModuleKind::Encoder);
    let simulation = options.simulate(&table, &alone)?;
    let filled = fill(workload, table, &simulation);
    // Where a rank ends up with more backwards than fit, phased is the better of the two.
    let time = |table: &Table| options.simulate(table, workload).map(|simulation| simulation.time());
    if time(&filled)? <= time(&phased)? { Ok(filled) } else { Ok(phased) }
}

/// An op of the encoder in an idle time.
struct Placed {
    start: f64,
    op: Op,
}

fn fill(workload: &Workload, table: Table, simulation: &Simulation) -> Table {
    let mut gaps = Gaps::new(simulation);
    let reads = simulation.runs(&table, Chunk(0), Phase::Forward, workload);
    let gradients = simulation.runs(&table, Chunk(0), Phase::Backward, workload);
    let mut placed: Vec<Vec<Placed>> = table.ranks.iter().map(|_| Vec::new()).collect();
    let mut home: Vec<(Item, usize)> = Vec::new();
    let mut ahead: Vec<Item> = Vec::new();
    // Last first and as late as possible: an item that can only run early finds the early gaps free.
    for microbatch in workload.microbatches().rev() {
        for item in workload.items(ModuleKind::Encoder, microbatch) {
            let read = reads[microbatch.0].map_or(f64::INFINITY, |run| run.start);
            let deadline = read - workload.transfer_time(Value::Embeds(item));
            match gaps.take_latest(deadline, |rank| cost(workload, item, Phase::Forward, rank)) {
                Some((rank, start)) => {
                    placed[rank].push(Placed { start, op: Op::encoder(Phase::Forward, vec![item]) });
                    home.push((item, rank));
                }
                None => ahead.push(item),
            }
        }
    }
    ahead.reverse();
    let slot = share_out(workload, Module::ENCODER, ahead.into_iter(), &mut vec![0.0; workload.ranks()]);
    home.extend(slot.iter().flat_map(at_home));
    home.sort_unstable();
    let mut late: Vec<Vec<Item>> = table.ranks.iter().map(|_| Vec::new()).collect();
    for (item, rank) in home {
        if !workload.has_backward(ModuleKind::Encoder, item.microbatch) {
            continue;
        }
        let made = gradients[item.microbatch.0].map_or(0.0, |run| run.end);
        let release = made + workload.transfer_time(Value::EmbedGrad(item));
        match gaps.take_earliest(rank, release, cost(workload, item, Phase::Backward, rank)) {
            Some(start) => {
                placed[rank].push(Placed { start, op: Op::encoder(Phase::Backward, vec![item]) });
            }
            None => late[rank].push(item),
        }
    }
    let ranks = table.ranks.into_iter().enumerate().map(|(rank, ops)| {
        let ahead = slot.iter().flat_map(|slot| phased::by_microbatch(slot.shares[rank].clone()));
        let mut all: Vec<Op> = ahead.map(|items| Op::encoder(Phase::Forward, items)).collect();
        all.extend(merge(ops, simulation, rank, std::mem::take(&mut placed[rank])));
        let late = phased::by_microbatch(std::mem::take(&mut late[rank]));
        all.extend(late.into_iter().map(|items| Op::encoder(Phase::Backward, items)));
        all
    });
    Table { ranks: ranks.collect() }.with_step()
}

fn at_home(slot: &Slot) -> impl Iterator<Item = (Item, usize)> + '_ {
    slot.shares.iter().enumerate().flat_map(|(rank, items)| items.iter().map(move |item| (*item, rank)))
}

fn cost(workload: &Workload, item: Item, phase: Phase, rank: usize) -> f64 {
    workload.unit_cost(Unit::item(Module::ENCODER, item), phase) * workload.slowdown(Rank(rank))
}

/// A rank's ops and what was placed between them, by start. Of those at one moment forwards come first, since an op
/// that takes no time may read what they make, and backwards last.
fn merge(ops: Vec<Op>, simulation: &Simulation, rank: usize, mut placed: Vec<Placed>) -> Vec<Op> {
    placed.sort_by(|a, b| a.start.total_cmp(&b.start));
    let is_forward = |op: &Op| matches!(op, Op::Compute { phase: Phase::Forward, .. });
    let mut all = Vec::with_capacity(ops.len() + placed.len());
    let mut placed = placed.into_iter().peekable();
    for (op, span) in ops.into_iter().zip(&simulation.spans[rank]) {
        let before =
            |next: &Placed| next.start < span.start || (next.start == span.start && is_forward(&next.op));
        while let Some(next) = placed.next_if(before) {
            all.push(next.op);
        }
        all.push(op);
    }
    all.extend(placed.map(|next| next.op));
    all
}
