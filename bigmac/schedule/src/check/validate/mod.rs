//! Checks a table before anything runs: complete, in order, free of deadlocks, within its memory limits.

mod complete;
mod memory;
mod transfers;

use crate::check::budget::{Budget, Limits, UnknownSize};
use crate::check::lower::lower;
use crate::clock::{Blocked, SimulateError, list, simulate};
use crate::step::{ModuleKind, Op, Phase, Rank, Table, Unit, Value, Workload};
use std::fmt;
use thiserror::Error;

/// An op and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rank that runs it.
    pub rank: Rank,
    /// Position in the rank's list.
    pub index: usize,
    /// The op.
    pub op: Op,
}

impl Place {
    fn of(table: &Table, (rank, index): (usize, usize)) -> Box<Place> {
        Box::new(Place { rank: Rank(rank), index, op: table.ranks[rank][index].clone() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (op {} of {})", self.op, self.index, self.rank)
    }
}

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)]
pub enum ValidateError {
    /// An op that the table should not have, or not there.
    #[error("{place} {why}")]
    Op { place: Box<Place>, why: String },
    /// A phase of some work that is in no rank's list.
    #[error("{unit} has no {}: add the op to the table", phase.words())]
    Missing { unit: Unit, phase: Phase },
    /// Phases of one unit in the wrong order or on different ranks.
    #[error("{later} needs {earlier} before it on the same rank")]
    Order { earlier: Box<Place>, later: Box<Place> },
    /// A rank that does not end with one optimizer step.
    #[error(
        "{rank} has {count} optimizer steps{}; every rank must end with exactly one",
        if *count == 1 { ", but not at its end" } else { "" }
    )]
    Step { rank: Rank, count: usize },
    /// A value that is not brought from its producer's rank to its reader's.
    #[error("{value} is made on {from} and read on {to}, but {what}")]
    Transfer { value: Value, from: Rank, to: Rank, what: TransferFault },
    /// Dependencies in a circle, or another table's ranks.
    #[error(transparent)]
    Run(#[from] SimulateError),
    /// Ranks that wait for each other when sends wait for their receivers: each with the value it sends or receives.
    #[error("with sends that wait for their receiver the schedule deadlocks: {}", list(frontier))]
    Deadlock { frontier: Vec<Blocked> },
    /// More activations than allowed; `peak` is in the unit of the budget.
    #[error(
        "{module} activations peak at {peak} on {rank}, over the budget of {budget}: raise it, or choose a schedule \
         that keeps fewer alive"
    )]
    Budget { module: ModuleKind, rank: Rank, peak: Budget, budget: Budget },
    #[error(transparent)]
    UnknownSize(#[from] UnknownSize),
}

/// What is wrong with a value's way from rank to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferFault {
    /// No send.
    NotSent,
    /// No receive.
    NotReceived,
    /// The send comes before the op that makes the value.
    SentTooEarly,
    /// The receive comes after the op that reads the value.
    ReceivedTooLate,
    /// Send or receive names another rank.
    WrongPeer,
}

impl fmt::Display for TransferFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransferFault::NotSent => "never sent",
            TransferFault::NotReceived => "never received",
            TransferFault::SentTooEarly => "sent before it is made",
            TransferFault::ReceivedTooLate => "received after it is read",
            TransferFault::WrongPeer => "its send or receive names another rank",
        })
    }
}

/// Checks that a table does the workload's step: every unit forward once and, where it has one, backward once, phases
/// in order on one rank; dependencies without a circle; communication (its own, or what [`lower`] adds) that brings
/// every value to its reader and cannot deadlock even where sends wait for their receivers; activations within limits.
///
/// # Errors
/// The first thing that is wrong, naming the ops.
pub fn validate(table: &Table, workload: &Workload, limits: &Limits) -> Result<(), ValidateError> {
    if table.ranks.len() != workload.ranks() {
        let (given, wanted) = (table.ranks.len(), workload.ranks());
        return Err(SimulateError::Ranks { given, wanted }.into());
    }
    complete::check(table, workload)?;
    if table.is_lowered() {
        transfers::check(table, workload)?;
        simulate(table, workload)?;
        transfers::rendezvous(table)?;
    } else {
        let lowered = lower(table, workload)?;
        transfers::check(&lowered, workload)?;
        transfers::rendezvous(&lowered)?;
    }
    memory::check(table, workload, limits)
}
