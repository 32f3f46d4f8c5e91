//! Adds the communication: a `Send` and a `Recv` for every value that is made on one rank and read on another.

use crate::clock::{SimulateError, Span, simulate};
use crate::step::{Op, Rank, Table, Workload, readers};

/// A place in one order of everything that happens on all ranks: time, then the number in the simulation's sequence,
/// then 0 for the op itself and 1 + i for the transfer of the i-th value it makes.
#[derive(Clone, Copy, PartialEq)]
struct Moment {
    time: f64,
    sequence: usize,
    part: usize,
}

impl Moment {
    fn compare(&self, other: &Moment) -> std::cmp::Ordering {
        let rest = (self.sequence, self.part).cmp(&(other.sequence, other.part));
        self.time.total_cmp(&other.time).then(rest)
    }
}

/// The table with its communication. One that already has it is returned as it is.
///
/// Every value is sent right after the op that makes it, and received after the ops that its receiver has started by
/// then. All ranks' lists are parts of one order in which each transfer is a single event, so the first event of that
/// order that is not done can always be done: the lowered table cannot deadlock, whether sends are buffered or wait
/// for their receiver, and between two ranks values are received in the order in which they are sent.
///
/// # Errors
/// Where the table cannot run at all.
pub fn lower(table: &Table, workload: &Workload) -> Result<Table, SimulateError> {
    if table.is_lowered() {
        return Ok(table.clone());
    }
    let simulation = simulate(table, workload)?;
    let readers = readers(table, workload);
    let mut events: Vec<Vec<(Moment, Op)>> =
        table.ranks.iter().map(|ops| Vec::with_capacity(ops.len())).collect();
    for (rank, ops) in table.ranks.iter().enumerate() {
        for (index, op) in ops.iter().enumerate() {
            let Span { start, end } = simulation.spans[rank][index];
            let sequence = simulation.sequence[rank][index];
            events[rank].push((Moment { time: start, sequence, part: 0 }, op.clone()));
            let mut part = 0;
            op.for_each_produced(workload, |value| {
                let reader = workload.value_index(value).and_then(|index| readers[index]);
                if let Some(reader) = reader.filter(|reader| reader.0 != rank) {
                    part += 1;
                    let moment = Moment { time: end, sequence, part };
                    events[rank].push((moment, Op::Send { value, to: reader }));
                    events[reader.0].push((moment, Op::Recv { value, from: Rank(rank) }));
                }
            });
        }
    }
    let ranks = events.into_iter().map(|mut events| {
        events.sort_by(|a, b| a.0.compare(&b.0));
        events.into_iter().map(|(_, op)| op).collect()
    });
    Ok(Table { ranks: ranks.collect() })
}
