//! Slots cut into a timed order of the LLM.

use crate::clock::{ChunkRun, Simulation, Slot, Slots};
use crate::step::{Chunk, Item, Microbatch, Op, Phase, Table, Value, Workload};

/// The LLM's ops with all slots in their places. Encoder forwards are ready `early` before they have to be.
pub(crate) fn with_slots(
    workload: &Workload,
    llm: &Table,
    simulation: &Simulation,
    slots: &Slots,
    early: f64,
) -> Table {
    let anchors = Anchors::new(llm, simulation, workload, early);
    let encoder = |slot: &Slot, phase| slot.shares.iter().map(|items| encoder_ops(phase, items)).collect();
    let forwards = slots.encoder_forward.iter().filter_map(|slot| {
        let (cut, ops) = (anchors.encoder_forward(slot)?, encoder(slot, Phase::Forward));
        Some(Insertion { cut, kind: SlotKind::EncoderForward, ops })
    });
    let backwards = slots.encoder_backward.iter().filter_map(|slot| {
        let (cut, ops) = (anchors.encoder_backward(slot)?, encoder(slot, Phase::Backward));
        Some(Insertion { cut, kind: SlotKind::EncoderBackward, ops })
    });
    let generator = slots.generator.iter().filter_map(|slot| {
        let ops = (0..workload.ranks()).map(|rank| slot.drawings(workload, rank)).collect();
        Some(Insertion { cut: anchors.generator(slot)?, kind: SlotKind::Generator, ops })
    });
    let mut insertions: Vec<Insertion> = forwards.chain(backwards).chain(generator).collect();
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

    fn is_after(&self, start: f64, sequence: usize) -> bool {
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

/// What slots are placed by: when the LLM's ops run by themselves.
struct Anchors<'a> {
    workload: &'a Workload,
    /// How long before their embeddings are read encoder forwards are done.
    early: f64,
    /// Times nearer than this are one.
    tolerance: f64,
    /// By microbatch: the first chunk's forward.
    first_forward: Vec<Option<ChunkRun>>,
    /// By microbatch: the first chunk's input gradients.
    first_backward: Vec<Option<ChunkRun>>,
    /// By microbatch: the last chunk's forward.
    last_forward: Vec<Option<ChunkRun>>,
    /// By microbatch: the last chunk's input gradients.
    last_backward: Vec<Option<ChunkRun>>,
    /// All ops as (end, earliest start of all that end at or after it), by end.
    running: Vec<(f64, f64)>,
}

impl<'a> Anchors<'a> {
    fn new(llm: &Table, simulation: &Simulation, workload: &'a Workload, early: f64) -> Self {
        let runs = |chunk, phase| simulation.runs(llm, chunk, phase, workload);
        let mut anchors = Anchors {
            workload,
            early,
            tolerance: simulation.time() * 1e-12,
            first_forward: runs(Chunk(0), Phase::Forward),
            first_backward: runs(Chunk(0), Phase::Backward),
            last_forward: runs(workload.last_chunk(), Phase::Forward),
            last_backward: runs(workload.last_chunk(), Phase::Backward),
            running: simulation.spans.iter().flatten().map(|span| (span.end, span.start)).collect(),
        };
        anchors.running.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut earliest = f64::INFINITY;
        for (_, start) in anchors.running.iter_mut().rev() {
            earliest = earliest.min(*start);
            *start = earliest;
        }
        anchors
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
    fn cut_after(&self, ops: impl Iterator<Item = ChunkRun>, transfer: f64) -> Option<Cut> {
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

    /// Before the first LLM forward that reads the slot's embeddings.
    fn encoder_forward(&self, slot: &Slot) -> Option<Cut> {
        let needed = at(&self.first_forward, &slot.microbatches).map(|op| op.start).min_by(f64::total_cmp)?;
        Some(self.cut_for(needed, self.longest_transfer(slot, Value::Embeds)))
    }

    /// After the first chunk's backward of all the slot's microbatches.
    fn encoder_backward(&self, slot: &Slot) -> Option<Cut> {
        let transfer = self.longest_transfer(slot, Value::EmbedGrad);
        self.cut_after(at(&self.first_backward, &slot.microbatches), transfer)
    }

    /// After the last chunk's forward of all the slot's microbatches.
    fn generator(&self, slot: &Slot) -> Option<Cut> {
        let transfer = self.longest_transfer(slot, Value::Cond);
        let ready = self.cut_after(at(&self.last_forward, &slot.microbatches), transfer)?;
        // Where values take time to cross, the last rank's backward could start before they have: it waits.
        let reads = at(&self.last_backward, &slot.microbatches);
        let reads = reads.map(|op| Cut { time: op.start, sequence: op.sequence });
        reads.chain([ready]).min_by(Cut::compare)
    }
}

fn encoder_ops(phase: Phase, items: &[Item]) -> Vec<Op> {
    if items.is_empty() { Vec::new() } else { vec![Op::encoder(phase, items.to_vec())] }
}

fn at<'a>(
    times: &'a [Option<ChunkRun>],
    microbatches: &'a [Microbatch],
) -> impl Iterator<Item = ChunkRun> + 'a {
    microbatches.iter().filter_map(|microbatch| times[microbatch.0])
}

fn insert(llm: &Table, simulation: &Simulation, mut insertions: Vec<Insertion>) -> Table {
    let mut table = Table::empty(llm.ranks.len());
    for (rank, ops) in llm.ranks.iter().enumerate() {
        let mut next = 0;
        let timed = simulation.spans[rank].iter().zip(&simulation.sequence[rank]);
        for (op, (span, sequence)) in ops.iter().zip(timed) {
            while let Some(slot) =
                insertions.get_mut(next).filter(|slot| !slot.cut.is_after(span.start, *sequence))
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
