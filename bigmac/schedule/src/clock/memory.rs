//! How much a table keeps alive: the analysis that sizes the executor's activation buffers.
//!
//! A unit (an LLM chunk on a microbatch, an encoder or generator item) holds what its forward saved from the start of
//! that forward until the end of its backward, or of its weight gradient where the backward is split. With a
//! recomputation in the table it holds from there instead, and a unit without a backward saves nothing. All of this
//! follows from the order of a rank's list, so the peak does not depend on how long ops take.

use crate::step::{ModuleKind, Op, PerModule, Phase, Piece, Table, Unit, Workload};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens to a unit's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They come to life as the op starts.
    Acquire,
    /// They are freed as the op ends.
    Release,
}

/// Visits every change of a rank's live activations in the order of its ops, with the op's position in `ops`.
/// An op acquires all its units before anything else and releases all of them at its end.
pub fn walk(ops: &[Op], workload: &Workload, mut visit: impl FnMut(usize, Unit, Change)) {
    let recomputed = recomputed(ops);
    for (index, op) in ops.iter().enumerate() {
        for (unit, phase) in op.runs() {
            let kind = unit.module.kind();
            if !workload.goes_backward(unit.module, unit.microbatch()) {
                continue;
            }
            let change = match phase {
                Phase::Forward if recomputed.binary_search(&unit).is_ok() => continue,
                Phase::Forward | Phase::Recompute => Change::Acquire,
                Phase::Backward | Phase::BackwardWeight => Change::Release,
                Phase::BackwardInput if workload.has_weight_gradient(kind) => continue,
                Phase::BackwardInput => Change::Release,
            };
            visit(index, unit, change);
        }
    }
}

/// The units that a rank recomputes before their backward, sorted: their forward saves nothing.
pub fn recomputed(ops: &[Op]) -> Vec<Unit> {
    let again = ops.iter().filter(|op| matches!(op, Op::Compute { phase: Phase::Recompute, .. }));
    let mut units: Vec<Unit> = again.flat_map(Op::units).collect();
    units.sort_unstable();
    units
}

/// Microbatches are counted in whole numbers of this part of one: shares are added and taken away again, and so cancel
/// exactly.
pub(crate) const MICROBATCH: u64 = 1 << 40;

/// The share of a microbatch that units are.
#[derive(Clone, Debug)]
pub struct Shares<'a> {
    workload: &'a Workload,
    /// By microbatch: the forwards of its items together, as if the module were whole.
    forwards: PerModule<Vec<f64>>,
}

impl<'a> Shares<'a> {
    /// The shares of a workload's units.
    pub fn new(workload: &'a Workload) -> Shares<'a> {
        let forward = |kind| {
            let loads = workload.loads().iter();
            loads.map(|load| load.items(kind).iter().map(|item| item.forward).sum()).collect()
        };
        Shares { workload, forwards: PerModule::from_fn(forward) }
    }

    pub(crate) fn workload(&self) -> &'a Workload {
        self.workload
    }

    /// A chunk is 1/v of the LLM's stage, an item its part of the microbatch's forward time (equal parts where that is
    /// 0).
    pub fn of(&self, unit: Unit) -> f64 {
        let Piece::Item(item) = unit.piece else { return 1.0 / self.workload.chunks_per_rank() as f64 };
        let kind = unit.module.kind();
        let total = self.forwards[kind].get(item.microbatch.0).copied().unwrap_or_default();
        if total > 0.0 {
            self.item_time(unit, Phase::Forward) / total
        } else {
            1.0 / self.workload.items(kind, item.microbatch).count() as f64
        }
    }

    /// Time of an item in a phase, as if the module were whole; 0 for a unit of the LLM.
    pub(crate) fn item_time(&self, unit: Unit, phase: Phase) -> f64 {
        let Piece::Item(item) = unit.piece else { return 0.0 };
        let load = self.workload.loads().get(item.microbatch.0);
        let cost = load.and_then(|load| load.items(unit.module.kind()).get(item.index));
        cost.map_or(0.0, |cost| cost.of(phase))
    }

    /// The longest forward of all of a microbatch's items.
    pub(crate) fn largest(&self, kind: ModuleKind) -> f64 {
        self.forwards[kind].iter().copied().fold(0.0, f64::max)
    }
}

/// A count of 1 / [`MICROBATCH`] as a number of microbatches, without the hair that sums of shares are off.
pub(crate) fn in_microbatches(count: u64) -> f64 {
    ((count as f64 / MICROBATCH as f64) * 1e9).round() / 1e9
}

/// Per rank and module, the most microbatches whose activations are live at once; items count as [`Shares::of`].
pub fn peak_microbatches(table: &Table, workload: &Workload) -> Vec<PerModule<f64>> {
    let shares = Shares::new(workload);
    let count = |unit| (shares.of(unit) * MICROBATCH as f64).round() as u64;
    peak_bytes(table, workload, count).into_iter().map(|peak| peak.map(in_microbatches)).collect()
}

/// Per rank and module, the most bytes that live activations hold at once, given what each unit saves.
pub fn peak_bytes(table: &Table, workload: &Workload, saved: impl Fn(Unit) -> u64) -> Vec<PerModule<u64>> {
    let peak = |ops: &Vec<Op>| {
        let mut live = PerModule::<Live>::default();
        walk(ops, workload, |_, unit, change| live[unit.module.kind()].apply(change, saved(unit)));
        live.map(|live| live.peak)
    };
    table.ranks.iter().map(peak).collect()
}

/// Per rank, the most bytes that live activations of all modules together hold at once.
pub fn peak_bytes_together(table: &Table, workload: &Workload, saved: impl Fn(Unit) -> u64) -> Vec<u64> {
    let peak = |ops: &Vec<Op>| {
        let mut live = Live::default();
        walk(ops, workload, |_, unit, change| live.apply(change, saved(unit)));
        live.peak
    };
    table.ranks.iter().map(peak).collect()
}

/// What is alive, and the most that has been.
#[derive(Default)]
struct Live {
    now: u64,
    peak: u64,
}

impl Live {
    fn apply(&mut self, change: Change, bytes: u64) {
        match change {
            Change::Acquire => self.now = self.now.saturating_add(bytes),
            Change::Release => self.now = self.now.saturating_sub(bytes),
        }
        self.peak = self.peak.max(self.now);
    }
}

/// The activation buffers that a table needs: how many per rank and module, and which of them each unit uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferPlan {
    /// Number of buffers of each module on each rank: the most units that are live at once.
    pub slots: Vec<PerModule<usize>>,
    /// By [`Workload::unit_index`]: the number of the unit's buffer among those of its rank and module; `None` for a
    /// unit that saves nothing.
    pub slot_of: Vec<Option<usize>>,
}

/// Gives every unit the lowest-numbered buffer that is free when it comes to life.
pub fn plan_buffers(table: &Table, workload: &Workload) -> BufferPlan {
    let mut plan = BufferPlan {
        slots: vec![PerModule::default(); table.ranks.len()],
        slot_of: vec![None; workload.unit_count()],
    };
    for (rank, ops) in table.ranks.iter().enumerate() {
        let mut free = PerModule::<BinaryHeap<Reverse<usize>>>::default();
        walk(ops, workload, |_, unit, change| {
            let kind = unit.module.kind();
            let Some(index) = workload.unit_index(unit) else { return };
            match change {
                Change::Acquire => {
                    let new = Reverse(plan.slots[rank][kind]);
                    let Reverse(slot) = free[kind].pop().unwrap_or(new);
                    plan.slots[rank][kind] = plan.slots[rank][kind].max(slot + 1);
                    plan.slot_of[index] = Some(slot);
                }
                Change::Release => {
                    if let Some(slot) = plan.slot_of[index] {
                        free[kind].push(Reverse(slot));
                    }
                }
            }
        });
    }
    plan
}
