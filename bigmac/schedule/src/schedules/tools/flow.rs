//! Slots of uneven work: items flow through them in order, whatever microbatch they belong to.
//!
//! A slot for each microbatch (or group) alone wastes what its items cannot be shared out evenly: one image on p ranks
//! leaves p - 1 of them idle. Here the step's items are shared out as a whole, in order, each to the rank that has the
//! least so far, and a slot is an interval of that common clock: encoder forwards of later microbatches fill up the
//! slots of earlier ones, and backwards wait until every rank has some. Ranks run ahead by an item or two, not by a
//! batch, so what is alive stays independent of the batch.

use crate::clock::{Slot, Slots, largest_first};
use crate::step::{Item, Module, ModuleKind, Phase, Rank, Unit, Workload};

/// Slots of a flow of items. A drawing is done at most `lag` microbatches after its own has been read.
pub(crate) fn flow(workload: &Workload, lag: usize) -> Slots {
    let encoder = shared_out(workload, Module::ENCODER);
    let generator = shared_out(workload, Module::GENERATOR);
    let phase = |phase| {
        move |item, rank| {
            workload.unit_cost(Unit::item(Module::ENCODER, item), phase) * workload.slowdown(Rank(rank))
        }
    };
    let drawing =
        |item, rank| workload.whole_cost(Unit::item(Module::GENERATOR, item)) * workload.slowdown(Rank(rank));
    let learns = |item: &Item| workload.has_backward(ModuleKind::Encoder, item.microbatch);
    let learning: Vec<Vec<Item>> =
        encoder.iter().map(|items| items.iter().copied().filter(|item| learns(item)).collect()).collect();
    let count = workload.len();
    Slots {
        encoder_forward: run_ahead(&queues(encoder, phase(Phase::Forward)), count),
        encoder_backward: run_after(&queues(learning, phase(Phase::Backward)), count, count),
        generator: run_after(&queues(generator, drawing), count, lag),
    }
}

/// Every rank's items of the whole step, in order: microbatch by microbatch the longest first, each to the rank that
/// has the least so far.
fn shared_out(workload: &Workload, module: Module) -> Vec<Vec<Item>> {
    let mut totals = vec![0.0; workload.ranks()];
    let mut ranks = vec![Vec::new(); workload.ranks()];
    for microbatch in workload.microbatches() {
        let items = workload.items(module.kind(), microbatch);
        let cost = |item| workload.whole_cost(Unit::item(module, item));
        for (cost, item) in largest_first(items, cost) {
            let done = |rank: &usize| totals[*rank] + cost * workload.slowdown(Rank(*rank));
            let rank = (0..totals.len()).min_by(|a, b| done(a).total_cmp(&done(b))).unwrap_or(0);
            totals[rank] = done(&rank);
            ranks[rank].push(item);
        }
    }
    ranks
}

/// A rank's items with the moments at which they end on the common clock, if the rank never waits.
type Queue = Vec<(Item, f64)>;

fn queues(ranks: Vec<Vec<Item>>, time: impl Fn(Item, usize) -> f64) -> Vec<Queue> {
    let queue = |(rank, items): (usize, Vec<Item>)| {
        let mut end = 0.0;
        let timed = items.into_iter().map(|item| {
            end += time(item, rank);
            (item, end)
        });
        timed.collect()
    };
    ranks.into_iter().enumerate().map(queue).collect()
}

/// One slot per microbatch with items: it lasts until all items up to that microbatch's are done, and every rank fills
/// it up with whatever comes next.
fn run_ahead(queues: &[Queue], microbatches: usize) -> Vec<Slot> {
    let end = queues.iter().flatten().map(|(_, end)| *end).fold(0.0, f64::max);
    let mut slots = Vec::new();
    let mut next = vec![0; queues.len()];
    for microbatch in 0..microbatches {
        let own = |(item, _): &&(Item, f64)| item.microbatch.0 <= microbatch;
        let until = queues.iter().flat_map(|queue| queue.iter().take_while(own).last());
        let until = until.map(|(_, end)| *end).fold(0.0, f64::max) + end * 1e-12;
        slots.extend(cut(queues, &mut next, |_, end| *end <= until));
    }
    slots
}

/// One slot per microbatch with items: it lasts as long as every rank has something to do of the items up to that
/// microbatch's, or until those of `lag` microbatches ago are done; the last takes what is left.
fn run_after(queues: &[Queue], microbatches: usize, lag: usize) -> Vec<Slot> {
    let end = queues.iter().flatten().map(|(_, end)| *end).fold(0.0, f64::max);
    let mut slots = Vec::new();
    let mut next = vec![0; queues.len()];
    for microbatch in 0..microbatches {
        let up_to = |last: usize| {
            queues.iter().map(move |queue| {
                queue
                    .iter()
                    .take_while(|(item, _)| item.microbatch.0 <= last)
                    .last()
                    .map_or(0.0, |(_, end)| *end)
            })
        };
        let due = (microbatch + 1).checked_sub(lag);
        let due = due.map_or(0.0, |due| up_to(due).fold(0.0, f64::max));
        let busy = up_to(microbatch).fold(f64::INFINITY, f64::min);
        let until = if microbatch + 1 == microbatches { f64::INFINITY } else { due.max(busy) + end * 1e-12 };
        slots.extend(cut(queues, &mut next, |item, end| item.microbatch.0 <= microbatch && *end <= until));
    }
    slots
}

/// The slot of each rank's next items as far as `fits`; `None` without any.
fn cut(queues: &[Queue], next: &mut [usize], fits: impl Fn(&Item, &f64) -> bool) -> Option<Slot> {
    let shares = queues.iter().zip(next.iter_mut()).map(|(queue, next)| {
        let share = queue[*next..].iter().take_while(|(item, end)| fits(item, end));
        let share: Vec<Item> = share.map(|(item, _)| *item).collect();
        *next += share.len();
        share
    });
    Slot::of(shares.collect())
}
