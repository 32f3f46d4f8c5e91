//! Slots cut into a timed order of the LLM.

use crate::clock::{Simulation, Slot, Slots};
use crate::schedules::phased::drawings;
use crate::step::{Chunk, Item, Microbatch, Module, Op, Phase, Table, Value, Work, Workload};

/// The LLM's ops with all slots in their places. Encoder forwards are ready `early` before they have to be.
pub(crate) fn with_slots(
    workload: &Workload,
    llm: &Table,
    simulation: &Simulation,
    slots: &Slots,
    early: f64,
) -> Table {
    let clock = Clock::new(llm, simulation, workload, early);
    let mut insertions = clock.encoder_forwards(&slots.encoder_forward);
    insertions.extend(clock.encoder_backwards(&slots.encoder_backward));
    insertions.extend(clock.generator_insertions(&slots.generator));
    // Of slots at one moment, those that free memory come first.
    insertions.sort_by(|a, b| a.cut.compare(&b.cut).then(a.kind.cmp(&b.kind)));
    insert(llm, simulation, insertions)
}

/// Divides the LLM's ops into those before and those after a slot.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Ops that start earlier come before the slot.
    time: f64,
    /// So do ops that start at this very time with a number in the simulation's sequence below this one.
    sequence: usize,
}

impl Cut {
    fn before(time: f64) -> Cut {
        Cut { time, sequence: 0 }
    }

    fn compare(&self, other: &Cut) -> std::cmp::Ordering {
        self.time.total_cmp(&other.time).then(self.sequence.cmp(&other.sequence))
    }

    fn is_behind(&self, start: f64, sequence: usize) -> bool {
        start < self.time || (start == self.time && sequence < self.sequence)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SlotKind {
    EncoderBackward,
    Generator,
    EncoderForward,
}

struct Insertion {
    cut: Cut,
    kind: SlotKind,
    /// Per rank.
    ops: Vec<Vec<Op>>,
}

/// An LLM op on the clock.
#[derive(Clone, Copy)]
struct Timed {
    start: f64,
    end: f64,
    sequence: usize,
}

/// What slots are placed by: when the LLM's ops run by themselves.
struct Clock<'a> {
    workload: &'a Workload,
    /// How long before their embeddings are read encoder forwards are done.
    early: f64,
    /// Times nearer than this are one.
    tolerance: f64,
    /// By microbatch: the first chunk's forward.
    first_forward: Vec<Option<Timed>>,
    /// By microbatch: the first chunk's input gradients.
    first_backward: Vec<Option<Timed>>,
    /// By microbatch: the last chunk's forward.
    last_forward: Vec<Option<Timed>>,
    /// By microbatch: the last chunk's input gradients.
    last_backward: Vec<Option<Timed>>,
    /// All ops as (end, earliest start of all that end at or after it), by end.
    running: Vec<(f64, f64)>,
}

impl<'a> Clock<'a> {
    fn new(llm: &Table, simulation: &Simulation, workload: &'a Workload, early: f64) -> Self {
        let none = vec![None; workload.len()];
        let mut clock = Clock {
            workload,
            early,
            tolerance: simulation.time() * 1e-12,
            first_forward: none.clone(),
            first_backward: none.clone(),
            last_forward: none.clone(),
            last_backward: none,
            running: Vec::with_capacity(llm.len()),
        };
        for ((ops, spans), sequence) in llm.ranks.iter().zip(&simulation.spans).zip(&simulation.sequence) {
            for ((op, span), sequence) in ops.iter().zip(spans).zip(sequence) {
                clock.running.push((span.end, span.start));
                clock.note(op, Timed { start: span.start, end: span.end, sequence: *sequence });
            }
        }
        clock.running.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut earliest = f64::INFINITY;
        for (_, start) in clock.running.iter_mut().rev() {
            earliest = earliest.min(*start);
            *start = earliest;
        }
        clock
    }

    fn note(&mut self, op: &Op, timed: Timed) {
        let Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) } = op else {
            return;
        };
        let (first, last) = (*chunk == Chunk(0), *chunk == self.workload.last_chunk());
        let (at_first, at_last) = match phase {
            Phase::Forward => (&mut self.first_forward, &mut self.last_forward),
            Phase::Backward | Phase::BackwardInput => (&mut self.first_backward, &mut self.last_backward),
            Phase::BackwardWeight | Phase::Recompute => return,
        };
        if first {
            at_first[microbatch.0] = Some(timed);
        }
        if last {
            at_last[microbatch.0] = Some(timed);
        }
    }

    /// The latest moment at which a slot can be cut in so that every rank has ended its op in progress, and a value
    /// has crossed in `transfer`, by `time`: then the shares are done by the time the slot is.
    fn cut_for(&self, time: f64, transfer: f64) -> Cut {
        let deadline = time - transfer - self.early + self.tolerance;
        let later = self.running.partition_point(|(end, _)| *end <= deadline);
        let start = self.running.get(later).map_or(time, |(_, start)| start.min(time));
        Cut::before(start)
    }

    /// The earliest moment at which the values that the latest of these ops makes are on every rank, `transfer` later.
    fn cut_after(&self, ops: impl Iterator<Item = Timed>, transfer: f64) -> Option<Cut> {
        let cuts = ops.map(|op| {
            let time = op.end + transfer - self.tolerance;
            // An op that takes no time starts at the cut: its number puts it before the slot all the same.
            if op.start < time {
                Cut::before(time)
            } else {
                Cut { time: op.start, sequence: op.sequence + 1 }
            }
        });
        cuts.max_by(Cut::compare)
    }

    /// The longest time that a value of one of the slot's items takes between two ranks.
    fn longest_transfer(&self, slot: &Slot, value: fn(Item) -> Value) -> f64 {
        let items = slot.shares.iter().flatten();
        items.map(|item| self.workload.transfer_time(value(*item))).fold(0.0, f64::max)
    }

    fn encoder_forwards(&self, slots: &[Slot]) -> Vec<Insertion> {
        let placed = slots.iter().filter_map(|slot| {
            let needed = at(&self.first_forward, &slot.microbatches).map(|op| op.start);
            let needed = needed.min_by(f64::total_cmp)?;
            let cut = self.cut_for(needed, self.longest_transfer(slot, Value::Embeds));
            let ops = slot.shares.iter().map(|items| encoder_ops(Phase::Forward, items)).collect();
            Some(Insertion { cut, kind: SlotKind::EncoderForward, ops })
        });
        placed.collect()
    }

    fn encoder_backwards(&self, slots: &[Slot]) -> Vec<Insertion> {
        let placed = slots.iter().filter_map(|slot| {
            let transfer = self.longest_transfer(slot, Value::EmbedGrad);
            let cut = self.cut_after(at(&self.first_backward, &slot.microbatches), transfer)?;
            let ops = slot.shares.iter().map(|items| encoder_ops(Phase::Backward, items)).collect();
            Some(Insertion { cut, kind: SlotKind::EncoderBackward, ops })
        });
        placed.collect()
    }

    fn generator_insertions(&self, slots: &[Slot]) -> Vec<Insertion> {
        let placed = slots.iter().filter_map(|slot| {
            let transfer = self.longest_transfer(slot, Value::Cond);
            let ready = self.cut_after(at(&self.last_forward, &slot.microbatches), transfer)?;
            // Where values take time to cross, the last rank's backward could start before they have: it waits.
            let reads = at(&self.last_backward, &slot.microbatches);
            let reads = reads.map(|op| Cut { time: op.start, sequence: op.sequence });
            let cut = reads.chain([ready]).min_by(Cut::compare)?;
            let ops = (0..self.workload.ranks()).map(|rank| drawings(self.workload, slot, rank)).collect();
            Some(Insertion { cut, kind: SlotKind::Generator, ops })
        });
        placed.collect()
    }
}

fn encoder_ops(phase: Phase, items: &[Item]) -> Vec<Op> {
    if items.is_empty() { Vec::new() } else { vec![Op::encoder(phase, items.to_vec())] }
}

fn at<'a>(times: &'a [Option<Timed>], microbatches: &'a [Microbatch]) -> impl Iterator<Item = Timed> + 'a {
    microbatches.iter().filter_map(|microbatch| times[microbatch.0])
}

fn insert(llm: &Table, simulation: &Simulation, mut insertions: Vec<Insertion>) -> Table {
    let mut table = Table::empty(llm.ranks.len());
    for (rank, ops) in llm.ranks.iter().enumerate() {
        let mut next = 0;
        let timed = simulation.spans[rank].iter().zip(&simulation.sequence[rank]);
        for (op, (span, sequence)) in ops.iter().zip(timed) {
            while let Some(slot) =
                insertions.get_mut(next).filter(|slot| !slot.cut.is_behind(span.start, *sequence))
            {
                table.ranks[rank].append(&mut slot.ops[rank]);
                next += 1;
            }
            table.ranks[rank].push(op.clone());
        }
        for slot in &mut insertions[next..] {
            table.ranks[rank].append(&mut slot.ops[rank]);
        }
    }
    table
}
