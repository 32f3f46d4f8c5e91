//! Nested fill: past the paper, encoder and generator items and the LLM's weight gradients fill the LLM's own bubbles.
//!
//! T_ideal leaves the LLM's bubble empty. But items can run on any rank, and weight gradients (Zero Bubble, arXiv
//! 2401.10241) at any time, so a step can come down to its work bound: all work, on all ranks, without a wait. A plan
//! is made on the clock from the costs: every free rank takes the most urgent task that is there and fits its memory,
//! and items are shared out so that all ranks have the same work in all. Where ranks still wait at one end of the step,
//! the same tasks are planned from the end, each as late as the last plan allows, then again from the start. Of several
//! rules of what is urgent the fastest is kept, and none is tried once the bound is reached. Backwards run whole, which
//! is shorter, wherever that takes the step no longer.

mod bound;
mod capacity;
mod choice;
mod held;
mod limits;
mod merge;
mod planner;
mod search;
mod tasks;

use self::choice::choose;
pub(crate) use self::limits::Room;
use self::merge::Order;
use self::tasks::{Class, Task, Tasks};
use crate::api::{Options, Schedule, ScheduleError};
use crate::check::Limits;
use crate::clock::simulate;
use crate::schedules::nested::NESTED;
use crate::step::{ModuleKind, Phase, Table, Workload};

/// Within its budgets: of encoder activations, 4 microbatches per rank where nothing is given; of the LLM's (counted
/// from forward until weight gradients) what 1F1B holds and one microbatch more; of the generator's one item. It has an
/// order of the LLM of its own. Where `nested` is faster within the same memory, it is nested's table.
pub(crate) const NESTED_FILL: Schedule = Schedule {
    name: "nested-fill",
    summary: "nested, with items and weight gradients in the LLM's own bubbles",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let room = Room::new(workload, &options.limits, NESTED_FILL.name)?;
    let Planned { table: filled, time: planned, bound } = planned(workload, &room);
    // A plan has no overlaps, so its bound is not one of orders that gain by them.
    if workload.overlap() == 0.0 && planned <= bound * (1.0 + 1e-9) {
        return Ok(filled);
    }
    // `nested` is one more candidate: it needs an LLM schedule that fits and has minima of its own, so there may be
    // none.
    let nested = NESTED.build(workload, options).ok();
    let nested = nested.filter(|nested| fits(nested, &room));
    Ok(nested.filter(|nested| time(nested, workload) < time(&filled, workload)).unwrap_or(filled))
}

/// A lower bound of the time of any order of the step that keeps to `limits`, or to what `nested-fill` holds where they
/// say nothing: the work bound, or more where memory and the chain of the LLM's stages keep ranks waiting with too
/// little to fill the wait.
///
/// # Errors
/// Where a budget is below what any order needs, or is in bytes and a microbatch's bytes are not known.
pub fn lower_bound(workload: &Workload, limits: &Limits) -> Result<f64, ScheduleError> {
    Ok(bound::lower_bound(workload, &Room::new(workload, limits, NESTED_FILL.name)?))
}

/// The ops of the fastest order found within a room.
pub(crate) struct Planned {
    pub table: Table,
    /// The time that it was planned to take.
    pub time: f64,
    /// A lower bound of that.
    pub bound: f64,
}

pub(crate) fn planned(workload: &Workload, room: &Room<'_>) -> Planned {
    let graph = Tasks::new(workload, &room.measures);
    let (order, bound) = choose(&graph, workload, room);
    Planned { table: write(&order, &graph, workload).with_step(), time: order.time, bound }
}

fn time(table: &Table, workload: &Workload) -> f64 {
    simulate(table, workload).map_or(f64::INFINITY, |simulation| simulation.time())
}

/// Whether a table keeps to what ranks may hold.
fn fits(table: &Table, room: &Room<'_>) -> bool {
    let mut ranks = room.measures.peaks(table).into_iter().zip(&room.llm);
    ranks.all(|(peak, llm)| {
        peak.encoder <= room.encoder && peak.generator <= room.generator && peak.llm <= *llm
    })
}

/// The ops of a plan.
fn write(order: &Order, graph: &Tasks, workload: &Workload) -> Table {
    let mut table = Table::empty(order.ranks.len());
    for (ops, tasks) in table.ranks.iter_mut().zip(&order.ranks) {
        for index in tasks {
            let task = &graph.tasks[*index as usize];
            ops.extend(phases(task, order.whole[*index as usize], workload).map(|phase| task.unit.op(phase)));
        }
    }
    table
}

/// What a task runs, one after the other.
fn phases(task: &Task, whole: bool, workload: &Workload) -> impl Iterator<Item = Phase> + use<> {
    let (first, second) = match task.class {
        Class::Forward | Class::Encode => (Phase::Forward, None),
        Class::Backward if whole => (Phase::Backward, None),
        Class::Backward => (Phase::BackwardInput, None),
        Class::Weight => (Phase::BackwardWeight, None),
        Class::EncodeBackward => (Phase::Backward, None),
        Class::Draw => {
            let backward = workload.has_backward(ModuleKind::Generator, task.unit.microbatch());
            (Phase::Forward, backward.then_some(Phase::Backward))
        }
    };
    std::iter::once(first).chain(second)
}
