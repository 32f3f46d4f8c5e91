//! More warm-up for an order that is written out.

use crate::step::{Chunk, Op, Phase, Table, Unit, Workload};

/// The order with `extra` more forwards on every rank before each of its backwards, as far as there are forwards.
/// Forwards keep their order, and so does everything else; a backward that overlapped with a forward overlaps with one
/// that comes so much later.
///
/// Such a shift alone can end in a circle where ranks hold several chunks: a rank waits to run a forward that another
/// reaches only after a backward that waits for the first. So the lists are written in step, each op once what it reads
/// has been made, and where no rank can go on as it should, one runs its next backward early, or else its next forward.
/// One of those is always possible: the first op of its kind that is left in any run of the order as it was given.
pub(super) fn run_ahead(order: Table, workload: &Workload, extra: usize) -> Table {
    if extra == 0 {
        return order;
    }
    let lists = order.ranks.iter().map(|ops| List::of(ops)).collect();
    let count = workload.chunks() * workload.len();
    let run = Run { workload, extra, lists, forward: vec![false; count], backward: vec![false; count] };
    run.write()
}

/// A rank's ops, taken apart.
#[derive(Default)]
struct List {
    forwards: Vec<Unit>,
    others: Vec<Other>,
    /// How many forwards, and how many of the others, are written.
    done: [usize; 2],
    ops: Vec<Op>,
}

/// A backward or a part of one.
#[derive(Clone, Copy)]
struct Other {
    unit: Unit,
    phase: Phase,
    /// How many forwards come before it.
    after: usize,
    /// Whether it runs at once with the next forward.
    overlaps: bool,
}

impl List {
    fn of(ops: &[Op]) -> List {
        let mut list = List::default();
        for op in ops {
            let (after, overlaps) = (list.forwards.len(), matches!(op, Op::Overlap { .. }));
            for (unit, phase) in op.runs() {
                match phase {
                    Phase::Forward => list.forwards.push(unit),
                    _ => list.others.push(Other { unit, phase, after, overlaps }),
                }
            }
        }
        list
    }
}

struct Run<'a> {
    workload: &'a Workload,
    extra: usize,
    lists: Vec<List>,
    /// By microbatch and chunk: whether the forward, and the gradient for the chunk before, are written.
    forward: Vec<bool>,
    backward: Vec<bool>,
}

/// What a rank is to write next.
#[derive(Clone, Copy)]
enum Next {
    Forward,
    Other,
    Both,
}

impl Run<'_> {
    fn write(mut self) -> Table {
        loop {
            let mut moved = false;
            for rank in 0..self.lists.len() {
                while self.step(rank, self.wanted(rank)) {
                    moved = true;
                }
            }
            let mut any = |next| (0..self.lists.len()).any(|rank| self.step(rank, next));
            if !moved && !any(Next::Other) && !any(Next::Forward) {
                return Table { ranks: self.lists.into_iter().map(|list| list.ops).collect() };
            }
        }
    }

    fn wanted(&self, rank: usize) -> Next {
        let List { forwards, others, done, .. } = &self.lists[rank];
        let Some(other) = others.get(done[1]) else { return Next::Forward };
        let left = done[0] < forwards.len();
        if left && done[0] < other.after.saturating_add(self.extra) {
            Next::Forward
        } else if left && other.overlaps {
            Next::Both
        } else {
            Next::Other
        }
    }

    /// Writes it; false where there is none, or what it reads has not been made.
    fn step(&mut self, rank: usize, next: Next) -> bool {
        let list = &self.lists[rank];
        let (forward, other) =
            (list.forwards.get(list.done[0]).copied(), list.others.get(list.done[1]).copied());
        let forward = forward.filter(|unit| self.can_go_forward(*unit));
        let other = other.filter(|other| self.can_go_back(other));
        let op = match (next, forward, other) {
            (Next::Forward, Some(unit), _) => unit.op(Phase::Forward),
            (Next::Other, _, Some(other)) => other.unit.op(other.phase),
            (Next::Both, Some(forward), Some(Other { unit, phase, .. })) => {
                Op::Overlap { forward, backward: unit, phase }
            }
            _ => return false,
        };
        for (unit, phase) in op.runs() {
            let index = self.index(unit);
            match phase {
                Phase::Forward => self.forward[index] = true,
                _ => self.backward[index] = true,
            }
            self.lists[rank].done[usize::from(phase != Phase::Forward)] += 1;
        }
        self.lists[rank].ops.push(op);
        true
    }

    fn can_go_forward(&self, unit: Unit) -> bool {
        let before = unit.module.chunk().0.checked_sub(1);
        before.is_none_or(|chunk| self.forward[self.index(Unit::llm(Chunk(chunk), unit.microbatch()))])
    }

    fn can_go_back(&self, other: &Other) -> bool {
        let (unit, after) = (other.unit, other.unit.module.chunk().0 + 1);
        let gradient = after >= self.workload.chunks()
            || self.backward[self.index(Unit::llm(Chunk(after), unit.microbatch()))];
        // A weight gradient comes after its input gradient in its rank's list as it is.
        other.phase == Phase::BackwardWeight || (self.forward[self.index(unit)] && gradient)
    }

    fn index(&self, unit: Unit) -> usize {
        unit.microbatch().0 * self.workload.chunks() + unit.module.chunk().0
    }
}
