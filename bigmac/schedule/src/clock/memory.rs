//! How much a table keeps alive: the analysis that sizes the executor's activation buffers.
//!
//! A unit (an LLM chunk on a microbatch, an encoder or generator item) holds what its forward saved from the start of
//! that forward until the end of its backward, or of its weight gradient where the backward is split. With a
//! recomputation in the table it holds from there instead, and a unit without a backward saves nothing. All of this
//! follows from the order of a rank's list, so the peak does not depend on how long ops take.

use crate::step::{Op, PerModule, Phase, Piece, Table, Unit, Workload};
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
        let Op::Compute { phase, .. } = op else { continue };
        for unit in op.units() {
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

/// The share of a microbatch that a unit is: a chunk 1/v of the LLM's stage, an item its part of the microbatch's
/// forward time (equal parts where that is 0).
pub fn share(workload: &Workload, unit: Unit) -> f64 {
    match unit.piece {
        Piece::Microbatch(_) => 1.0 / workload.chunks_per_rank() as f64,
        Piece::Item(item) => {
            let kind = unit.module.kind();
            let cost = |item| workload.unit_cost(Unit::item(unit.module, item), Phase::Forward);
            let total: f64 = workload.items(kind, item.microbatch).map(cost).sum();
            if total > 0.0 {
                cost(item) / total
            } else {
                1.0 / workload.items(kind, item.microbatch).count() as f64
            }
        }
    }
}

/// Per rank and module, the most microbatches whose activations are live at once; items count as [`share`].
pub fn peak_microbatches(table: &Table, workload: &Workload) -> Vec<PerModule<f64>> {
    // Shares are added and taken away again: kept as whole numbers of 2^-40 they cancel exactly.
    const SCALE: f64 = (1u64 << 40) as f64;
    let peaks = peak_bytes(table, workload, |unit| (share(workload, unit) * SCALE).round() as u64);
    let unscale = |count: u64| ((count as f64 / SCALE) * 1e9).round() / 1e9;
    peaks.into_iter().map(|peak| peak.map(unscale)).collect()
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
            Change::Acquire => self.now += bytes,
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
