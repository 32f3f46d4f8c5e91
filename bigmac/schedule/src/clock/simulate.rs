//! When everything happens: an event-driven run of a table, linear in the number of ops.
//!
//! Each rank runs its list in order; an op starts once the rank is free and every value it consumes is there, which is
//! [`Workload::transfer_time`] after it was sent where it comes from another rank. Values are sent as they are made (in
//! a lowered table by its sends). Sends are buffered and take none of the sender's time, unless its link does not
//! overlap with computation: then it sends one value after the other before it goes on. Receives are posted, and the op
//! that reads the value is the one that waits.

use crate::clock::memory;
use crate::step::{Chunk, Module, Op, PerModule, Phase, Piece, Rank, Table, Unit, Value, Workload, readers};
use std::fmt;
use thiserror::Error;

/// When an op runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When it starts, in the workload's unit of time, from 0.
    pub start: f64,
    /// When it ends.
    pub end: f64,
}

/// An op of the LLM on the clock, with its place in [`Simulation::sequence`].
#[derive(Clone, Copy)]
pub(crate) struct ChunkRun {
    pub start: f64,
    pub end: f64,
    pub sequence: usize,
}

/// What a table does on the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// `spans[r][i]` is when op `i` of rank `r` runs.
    pub spans: Vec<Vec<Span>>,
    /// `sequence[r][i]` numbers all ops in one order in which each comes after everything it depends on.
    pub sequence: Vec<Vec<usize>>,
    /// Per rank: the time of its compute ops together.
    pub busy: Vec<f64>,
    /// Per rank: first start and last end of its compute ops; `None` where there are none.
    pub active: Vec<Option<Span>>,
}

impl Simulation {
    /// When the last compute op ends, starting from 0.
    pub fn time(&self) -> f64 {
        self.active.iter().flatten().map(|span| span.end).fold(0.0, f64::max)
    }

    /// Idle share as Zero Bubble counts it (arXiv 2401.10241, section 5): with `cost` the largest last end - first
    /// start of any rank, (cost - busiest rank's work) / cost. 0 where nothing takes time.
    pub fn bubble_rate(&self) -> f64 {
        let cost = self.active.iter().flatten().map(|span| span.end - span.start).fold(0.0, f64::max);
        let busiest = self.busy.iter().copied().fold(0.0, f64::max);
        if cost > 0.0 { (cost - busiest) / cost } else { 0.0 }
    }

    /// Share of all ranks' time, from 0 to the end, in which they compute. 1 where nothing takes time.
    pub fn utilization(&self) -> f64 {
        let total = self.time() * self.busy.len() as f64;
        if total > 0.0 { self.busy.iter().sum::<f64>() / total } else { 1.0 }
    }

    /// By microbatch: when a chunk of the LLM runs its forward, or its backward (its input gradients where that is
    /// split).
    pub(crate) fn runs(
        &self,
        table: &Table,
        chunk: Chunk,
        phase: Phase,
        workload: &Workload,
    ) -> Vec<Option<ChunkRun>> {
        let mut runs = vec![None; workload.len()];
        let ops = table.ranks.iter().flatten();
        let timed = ops.zip(self.spans.iter().flatten()).zip(self.sequence.iter().flatten());
        for ((op, Span { start, end }), sequence) in timed {
            for (unit, of) in op.runs() {
                let asked = of == phase || (phase, of) == (Phase::Backward, Phase::BackwardInput);
                if let (true, Module::Llm(_), Piece::Microbatch(microbatch)) =
                    (asked && unit.module.chunk() == chunk, unit.module, unit.piece)
                {
                    runs[microbatch.0] = Some(ChunkRun { start: *start, end: *end, sequence: *sequence });
                }
            }
        }
        runs
    }

    /// Memory over time: for each rank the moments at which live activations change, and how many microbatches of
    /// each module are live from then on (counted as in [`memory::peak_microbatches`]).
    pub fn memory(&self, table: &Table, workload: &Workload) -> Vec<Vec<(f64, PerModule<f64>)>> {
        let shares = memory::Shares::new(workload);
        self.memory_in(table, workload, |unit| shares.of(unit))
    }

    /// The same in any measure of what a unit saves.
    pub(crate) fn memory_in(
        &self,
        table: &Table,
        workload: &Workload,
        saved: impl Fn(Unit) -> f64,
    ) -> Vec<Vec<(f64, PerModule<f64>)>> {
        let spans = self.spans.iter();
        spans
            .zip(&table.ranks)
            .map(|(spans, ops)| {
                let mut live = PerModule::default();
                let mut points: Vec<(f64, PerModule<f64>)> = Vec::new();
                memory::walk(ops, workload, |index, unit, change| {
                    let Some(span) = spans.get(index) else { return };
                    let saved = saved(unit);
                    let (time, delta) = match change {
                        memory::Change::Acquire => (span.start, saved),
                        memory::Change::Release => (span.end, -saved),
                    };
                    live[unit.module.kind()] += delta;
                    match points.last_mut().filter(|(last, _)| *last == time) {
                        Some(point) => point.1 = live,
                        None => points.push((time, live)),
                    }
                });
                points
            })
            .collect()
    }
}

/// A rank that cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    /// Which rank.
    pub rank: Rank,
    /// Position of the op in the rank's list.
    pub index: usize,
    /// The op it stands at.
    pub op: Op,
    /// The values it waits for.
    pub missing: Vec<Value>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at op {} ({})", self.rank, self.index, self.op)?;
        for (i, value) in self.missing.iter().take(4).enumerate() {
            write!(f, "{}{value}", if i == 0 { " waits for " } else { ", " })?;
        }
        if self.missing.len() > 4 {
            write!(f, " and {} more", self.missing.len() - 4)?;
        }
        Ok(())
    }
}

/// A table that cannot run to its end.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SimulateError {
    /// Lists for other ranks than the workload has.
    #[error("the table has {given} ranks but the workload {wanted}: build the table for this workload")]
    Ranks {
        /// Of the table.
        given: usize,
        /// Of the workload.
        wanted: usize,
    },
    /// Every rank that is not done waits for another.
    #[error("the schedule cannot go on: {}", list(frontier))]
    Stuck {
        /// Every rank that is not done, with what it waits for.
        frontier: Vec<Blocked>,
    },
}

pub(crate) fn list(frontier: &[Blocked]) -> String {
    frontier.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Runs a table on the clock. Tables that [`validate`](crate::validate) accepts always run to their end.
///
/// # Errors
/// Where the table is for another number of ranks, or ranks wait for each other.
pub fn simulate(table: &Table, workload: &Workload) -> Result<Simulation, SimulateError> {
    run(table, workload, None)
}

/// The same where compute ops take these times, `durations[r][i]` that of op `i` of rank `r`, instead of the
/// workload's; transfers keep theirs. An op that `durations` lacks takes no time.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_durations(
    table: &Table,
    workload: &Workload,
    durations: &[Vec<f64>],
) -> Result<Simulation, SimulateError> {
    run(table, workload, Some(durations))
}

fn run(
    table: &Table,
    workload: &Workload,
    durations: Option<&[Vec<f64>]>,
) -> Result<Simulation, SimulateError> {
    if table.ranks.len() != workload.ranks() {
        return Err(SimulateError::Ranks { given: table.ranks.len(), wanted: workload.ranks() });
    }
    let mut run = Run::new(table, workload, durations);
    let mut ready: Vec<usize> = (0..table.ranks.len()).rev().collect();
    while let Some(rank) = ready.pop() {
        while run.advance(rank, &mut ready) {}
    }
    run.finish()
}

/// No rank waits for the value.
const NOBODY: u32 = u32::MAX;

/// A value on its way.
#[derive(Clone, Copy)]
struct Flight {
    /// When its producer ended; NaN before.
    made: f64,
    /// When its producer began to send it; NaN before.
    sent: f64,
    /// Its producer's rank.
    producer: u32,
    /// The rank that stands at an op reading it.
    waiting: u32,
}

struct Run<'a> {
    table: &'a Table,
    workload: &'a Workload,
    /// Of compute ops, by rank and position, where they are not those of the workload.
    durations: Option<&'a [Vec<f64>]>,
    lowered: bool,
    /// By value: who reads it, where it matters who is sent to.
    readers: Vec<Option<Rank>>,
    flights: Vec<Flight>,
    clock: Vec<f64>,
    next: u32,
    simulation: Simulation,
    steps: Vec<usize>,
}

impl<'a> Run<'a> {
    fn new(table: &'a Table, workload: &'a Workload, durations: Option<&'a [Vec<f64>]>) -> Self {
        let unmade = Flight { made: f64::NAN, sent: f64::NAN, producer: NOBODY, waiting: NOBODY };
        let ranks = table.ranks.len();
        let lowered = table.is_lowered();
        Run {
            table,
            workload,
            durations,
            lowered,
            readers: if lowered || workload.link().overlapped {
                Vec::new()
            } else {
                readers(table, workload)
            },
            flights: vec![unmade; workload.value_count()],
            clock: vec![0.0; ranks],
            next: 0,
            simulation: Simulation {
                spans: table.ranks.iter().map(|ops| Vec::with_capacity(ops.len())).collect(),
                sequence: table.ranks.iter().map(|ops| Vec::with_capacity(ops.len())).collect(),
                busy: vec![0.0; ranks],
                active: vec![None; ranks],
            },
            steps: vec![0; ranks],
        }
    }

    /// When the value is on the rank; `None` before.
    fn arrival(&self, value: Value, flight: &Flight, rank: usize) -> Option<f64> {
        let time = if flight.producer == rank as u32 {
            flight.made
        } else {
            flight.sent + self.workload.transfer_time(value)
        };
        (!time.is_nan()).then_some(time)
    }

    /// Runs the rank's next op; false where it has none or has to wait.
    fn advance(&mut self, rank: usize, ready: &mut Vec<usize>) -> bool {
        let table = self.table;
        let Some(op) = table.ranks[rank].get(self.steps[rank]) else { return false };
        let mut start = self.clock[rank];
        let mut blocked = false;
        op.for_each_consumed(self.workload, |value| {
            if blocked {
                return;
            }
            let index = self.workload.value_index(value);
            match index.and_then(|index| self.arrival(value, &self.flights[index], rank)) {
                Some(time) => start = start.max(time),
                None => {
                    blocked = true;
                    if let Some(index) = index {
                        self.flights[index].waiting = rank as u32;
                    }
                }
            }
        });
        if blocked {
            return false;
        }
        let end = start + self.cost(op, rank);
        self.record(rank, op, Span { start, end });
        self.publish(rank, op, end, ready);
        true
    }

    /// Time of the rank that the op takes.
    fn cost(&self, op: &Op, rank: usize) -> f64 {
        match (op, self.durations) {
            (Op::Send { value, .. }, _) if !self.workload.link().overlapped => {
                self.workload.transfer_time(*value)
            }
            (op, Some(durations)) if op.is_compute() => {
                durations.get(rank).and_then(|ops| ops.get(self.steps[rank])).copied().unwrap_or(0.0)
            }
            _ => self.workload.cost(op, Rank(rank)),
        }
    }

    fn record(&mut self, rank: usize, op: &Op, span: Span) {
        self.clock[rank] = span.end;
        self.steps[rank] += 1;
        self.simulation.spans[rank].push(span);
        self.simulation.sequence[rank].push(self.next as usize);
        self.next += 1;
        if op.is_compute() {
            self.simulation.busy[rank] += span.end - span.start;
            let first = self.simulation.active[rank].map_or(span.start, |active| active.start);
            self.simulation.active[rank] = Some(Span { start: first, end: span.end });
        }
    }

    fn publish(&mut self, rank: usize, op: &Op, end: f64, ready: &mut Vec<usize>) {
        let mut wake = |flight: &mut Flight| {
            if flight.waiting != NOBODY {
                ready.push(flight.waiting as usize);
                flight.waiting = NOBODY;
            }
        };
        match op {
            Op::Compute { .. } | Op::Overlap { .. } => {
                // When the sender is done with what it has sent so far.
                let mut free = end;
                op.for_each_produced(self.workload, |value| {
                    let Some(index) = self.workload.value_index(value) else { return };
                    let flight = &mut self.flights[index];
                    (flight.made, flight.producer) = (end, rank as u32);
                    if !self.lowered {
                        flight.sent = free;
                        let reader = self.readers.get(index).copied().flatten();
                        if reader.is_some_and(|reader| reader.0 != rank) {
                            free += self.workload.transfer_time(value);
                        }
                    }
                    wake(flight);
                });
                self.clock[rank] = free;
            }
            Op::Send { value, .. } => {
                if let Some(index) = self.workload.value_index(*value) {
                    self.flights[index].sent = end - self.cost(op, rank);
                    wake(&mut self.flights[index]);
                }
            }
            Op::Recv { .. } | Op::Step => {}
        }
    }

    fn finish(self) -> Result<Simulation, SimulateError> {
        let stuck = |(rank, ops): (usize, &Vec<Op>)| {
            let index = self.steps[rank];
            let op = ops.get(index)?;
            let absent = |value: &Value| {
                let index = self.workload.value_index(*value);
                index.and_then(|index| self.arrival(*value, &self.flights[index], rank)).is_none()
            };
            let missing = op.consumes(self.workload).into_iter().filter(absent).collect();
            Some(Blocked { rank: Rank(rank), index, op: op.clone(), missing })
        };
        let frontier: Vec<Blocked> = self.table.ranks.iter().enumerate().filter_map(stuck).collect();
        if frontier.is_empty() { Ok(self.simulation) } else { Err(SimulateError::Stuck { frontier }) }
    }
}
