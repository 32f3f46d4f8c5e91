//! Slots: the items of a group of microbatches, shared over all ranks.

use crate::step::{Item, Microbatch, Module, ModuleKind, Op, PerModule, Phase, Rank, Unit, Workload};

/// The items of one module and one group of consecutive microbatches, shared over the ranks. Every rank holds the
/// module's weights, so any rank can run any item; its backward runs where its forward did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// The microbatches that have items in it.
    pub microbatches: Vec<Microbatch>,
    /// `shares[r]` is what rank `r` runs, in the order of the microbatches.
    pub shares: Vec<Vec<Item>>,
}

impl Slot {
    /// A slot of these shares; `None` without any items.
    pub(crate) fn of(shares: Vec<Vec<Item>>) -> Option<Slot> {
        let mut microbatches: Vec<Microbatch> = shares.iter().flatten().map(|item| item.microbatch).collect();
        microbatches.sort_unstable();
        microbatches.dedup();
        (!microbatches.is_empty()).then_some(Slot { microbatches, shares })
    }

    /// Time of the largest share in this phase, which is what the slot costs when it runs on all ranks at once.
    /// Items without a backward count only forward.
    fn cost(&self, workload: &Workload, module: Module, phase: Phase) -> f64 {
        let runs =
            |item: &Item| phase == Phase::Forward || workload.has_backward(module.kind(), item.microbatch);
        self.largest_share(workload, |item| {
            if runs(item) { workload.unit_cost(Unit::item(module, *item), phase) } else { 0.0 }
        })
    }

    /// Time of the largest share when each item's forward is followed by its backward.
    fn pair_cost(&self, workload: &Workload, module: Module) -> f64 {
        self.largest_share(workload, |item| workload.whole_cost(Unit::item(module, *item)))
    }

    fn largest_share(&self, workload: &Workload, time: impl Fn(&Item) -> f64) -> f64 {
        let shares = self.shares.iter().enumerate();
        let times =
            shares.map(|(rank, items)| items.iter().map(&time).sum::<f64>() * workload.slowdown(Rank(rank)));
        times.fold(0.0, f64::max)
    }

    /// A rank's share of a generator slot: each item's forward followed by its backward, so that one item is live.
    pub(crate) fn drawings(&self, workload: &Workload, rank: usize) -> Vec<Op> {
        let ops = |item: &Item| {
            let unit = Unit::item(Module::GENERATOR, *item);
            let backward = workload.has_backward(ModuleKind::Generator, item.microbatch);
            [Some(unit.op(Phase::Forward)), backward.then(|| unit.op(Phase::Backward))]
        };
        self.shares[rank].iter().flat_map(ops).flatten().collect()
    }

    /// A rank's items that have a backward.
    pub(crate) fn backward_share(&self, workload: &Workload, kind: ModuleKind, rank: usize) -> Vec<Item> {
        let share = self.shares.get(rank).map_or(&[][..], |share| share);
        share.iter().copied().filter(|item| workload.has_backward(kind, item.microbatch)).collect()
    }
}

/// All slots of a step.
pub(crate) struct Slots {
    /// The encoder's forwards.
    pub encoder_forward: Vec<Slot>,
    /// The encoder's backwards.
    pub encoder_backward: Vec<Slot>,
    /// The generator's, each item's forward followed by its backward.
    pub generator: Vec<Slot>,
}

impl Slots {
    /// Slots of `group` consecutive microbatches each.
    pub(crate) fn grouped(workload: &Workload, group: usize) -> Slots {
        let encoder_forward = slots(workload, Module::ENCODER, group);
        let backward = |slot: &Slot| {
            let ranks = 0..slot.shares.len();
            Slot::of(ranks.map(|rank| slot.backward_share(workload, ModuleKind::Encoder, rank)).collect())
        };
        Slots {
            encoder_backward: encoder_forward.iter().filter_map(backward).collect(),
            encoder_forward,
            generator: slots(workload, Module::GENERATOR, group),
        }
    }
}

/// Shares the items of every group of `group` consecutive microbatches over the ranks, longest first, each to the rank
/// that would finish it first; among equals to the one with the fewest items, then with the least from earlier groups.
/// Groups without items have no slot.
pub(crate) fn slots(workload: &Workload, module: Module, group: usize) -> Vec<Slot> {
    let microbatches: Vec<Microbatch> = workload.microbatches().collect();
    let mut totals = vec![0.0; workload.ranks()];
    let groups = microbatches.chunks(group.max(1));
    let slot = |group: &[Microbatch]| {
        let items = group.iter().flat_map(|microbatch| workload.items(module.kind(), *microbatch));
        share_out(workload, module, items, &mut totals)
    };
    groups.filter_map(slot).collect()
}

/// Time of all slots of both item modules, at their largest shares: what they add to the LLM's time at most.
pub(crate) fn total_cost(workload: &Workload, group: usize) -> f64 {
    let time = |module: Module| -> f64 {
        let slots = slots(workload, module, group);
        let both = slots.iter().map(|slot| match module.kind() {
            // A drawing's forward and backward run one after the other, so their sum is what the largest share is of.
            ModuleKind::Generator => slot.pair_cost(workload, module),
            _ => slot.cost(workload, module, Phase::Forward) + slot.cost(workload, module, Phase::Backward),
        });
        both.sum()
    };
    time(Module::ENCODER) + time(Module::GENERATOR)
}

/// Shares these items over the ranks, as [`slots`] does a group's, and adds to what the ranks have in all; `None` where
/// there are no items.
pub(crate) fn share_out(
    workload: &Workload,
    module: Module,
    items: impl Iterator<Item = Item>,
    totals: &mut [f64],
) -> Option<Slot> {
    let costed = largest_first(items, |item| workload.whole_cost(Unit::item(module, item)));
    if costed.is_empty() {
        return None;
    }
    let mut loads = PerRank { now: vec![0.0; totals.len()], items: vec![0; totals.len()], before: totals };
    let mut shares = vec![Vec::new(); workload.ranks()];
    for (cost, item) in costed {
        shares[loads.place(workload, cost)].push(item);
    }
    shares.iter_mut().for_each(|share| share.sort_unstable());
    Slot::of(shares)
}

/// Items with their sizes, the largest first.
pub(crate) fn largest_first(
    items: impl Iterator<Item = Item>,
    size: impl Fn(Item) -> f64,
) -> Vec<(f64, Item)> {
    let mut sized: Vec<(f64, Item)> = items.map(|item| (size(item), item)).collect();
    sized.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    sized
}

struct PerRank<'a> {
    now: Vec<f64>,
    items: Vec<usize>,
    before: &'a mut [f64],
}

impl PerRank<'_> {
    /// Gives an item to the rank that would finish it first.
    fn place(&mut self, workload: &Workload, cost: f64) -> usize {
        let done = |rank: usize| self.now[rank] + cost * workload.slowdown(Rank(rank));
        let earlier = |a: &usize, b: &usize| {
            // Items that take no time take memory all the same.
            let ties = self.items[*a].cmp(&self.items[*b]).then(self.before[*a].total_cmp(&self.before[*b]));
            done(*a).total_cmp(&done(*b)).then(ties).then(a.cmp(b))
        };
        let rank = (0..self.now.len()).min_by(earlier).unwrap_or(0);
        let time = cost * workload.slowdown(Rank(rank));
        self.now[rank] += time;
        self.items[rank] += 1;
        self.before[rank] += time;
        rank
    }
}

/// Lower bound of any schedule's time: every rank's own work (its LLM chunks, and all that a
/// chain puts on it), and all work together over all ranks at their speeds. Where overlaps hide work, it is the bound of
/// ranks that overlap all forwards and backwards of the LLM as well as they could be.
pub fn work_bound(workload: &Workload) -> f64 {
    let mut own = vec![0.0; workload.ranks()];
    // Of the LLM, by rank: forwards and backwards.
    let mut passes = vec![[0.0f64; 2]; workload.ranks()];
    let mut items = PerModule::<f64>::default();
    for unit in workload.units() {
        let time = workload.whole_cost(unit);
        match workload.home(unit.module) {
            Some(rank) => {
                own[rank.0] += time;
                if unit.module.kind() == ModuleKind::Llm {
                    let forward = workload.unit_cost(unit, Phase::Forward);
                    passes[rank.0] = [passes[rank.0][0] + forward, passes[rank.0][1] + time - forward];
                }
            }
            None => items[unit.module.kind()] += time,
        }
    }
    for (own, [forward, backward]) in own.iter_mut().zip(passes) {
        *own -= workload.overlap() * forward.min(backward);
    }
    let slowdowns: Vec<f64> = (0..workload.ranks()).map(|rank| workload.slowdown(Rank(rank))).collect();
    let work = own.iter().sum::<f64>() + items.encoder + items.generator;
    // Ranks that run until T do T / slowdown of work; a rank's own work cannot go elsewhere.
    let shared = work / slowdowns.iter().map(|slowdown| 1.0 / slowdown).sum::<f64>();
    own.iter().zip(&slowdowns).map(|(work, slowdown)| work * slowdown).fold(shared, f64::max)
}
