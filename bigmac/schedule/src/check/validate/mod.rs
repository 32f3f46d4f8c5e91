//! Checks a table before anything runs: complete, in order, free of deadlocks, within its memory limits.

mod complete;
mod memory;
mod transfers;

use std::fmt;

use thiserror::Error;

use crate::check::budget::{Budget, Limits};
use crate::check::lower::lower;
use crate::clock::{Blocked, SimulateError, list, simulate};
use crate::step::{ModuleKind, Op, Phase, Rank, Table, Unit, Value, Workload};

/// An op and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// On which rank.
    pub rank: Rank,
    /// Position in the rank's list.
    pub index: usize,
    /// The op.
    pub op: Op,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (op {} of {})", self.op, self.index, self.rank)
    }
}

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ValidateError {
    /// An op that works on what it cannot work on.
    #[error("{place} makes no sense: {why}")]
    Malformed {
        /// The op.
        place: Box<Place>,
        /// Why.
        why: &'static str,
    },
    /// An op on something that the workload does not have.
    #[error("{place} runs {unit}, which the workload does not have")]
    Unknown {
        /// The op.
        place: Box<Place>,
        /// What it runs.
        unit: Unit,
    },
    /// A module on a rank that does not hold it.
    #[error("{place} is on the wrong rank: its weights are on {home}")]
    Home {
        /// The op.
        place: Box<Place>,
        /// Where it belongs.
        home: Rank,
    },
    /// The same work twice.
    #[error("{second} repeats the work of {first}")]
    Twice {
        /// The one.
        first: Box<Place>,
        /// The other.
        second: Box<Place>,
    },
    /// Work that nobody does.
    #[error("{unit} has no {}: add the op to the table", phase.words())]
    Missing {
        /// The work.
        unit: Unit,
        /// What is missing of it.
        phase: Phase,
    },
    /// A backward where nothing learns, or a weight gradient beside a whole backward.
    #[error("{place} is needless: {why}")]
    Needless {
        /// The op.
        place: Box<Place>,
        /// Why.
        why: &'static str,
    },
    /// Phases of one unit in the wrong order or on different ranks.
    #[error("{later} needs {earlier} before it on the same rank")]
    Order {
        /// What has to come first.
        earlier: Box<Place>,
        /// What needs it.
        later: Box<Place>,
    },
    /// A rank that does not end with one optimizer step.
    #[error("{rank} has {count} optimizer steps{}; every rank ends with exactly one", if *count == 1 { ", but not at its end" } else { "" })]
    Step {
        /// Which rank.
        rank: Rank,
        /// How many it has.
        count: usize,
    },
    /// A value that is not brought to its reader.
    #[error("{value} is made on {from} and read on {to}, but {what}")]
    Transfer {
        /// The value.
        value: Value,
        /// Its producer's rank.
        from: Rank,
        /// Its consumer's rank.
        to: Rank,
        /// What is wrong.
        what: TransferFault,
    },
    /// A transfer of something that is not to be transferred.
    #[error("{place} moves a value that no op on another rank reads, or moves it again")]
    NeedlessTransfer {
        /// The op.
        place: Box<Place>,
    },
    /// Dependencies in a circle, or another table's ranks.
    #[error(transparent)]
    Run(#[from] SimulateError),
    /// Ranks that wait for each other when sends wait for their receivers.
    #[error("with sends that wait for their receiver the schedule deadlocks: {}", list(frontier))]
    Deadlock {
        /// Every rank that is not done, with the value that it sends or receives.
        frontier: Vec<Blocked>,
    },
    /// More activations than allowed.
    #[error(
        "{module} activations peak at {peak} on {rank}, over the budget of {budget}: raise it, or choose a schedule \
         that keeps fewer alive"
    )]
    Budget {
        /// Whose.
        module: ModuleKind,
        /// Where.
        rank: Rank,
        /// How many, in the budget's unit.
        peak: Budget,
        /// What is allowed.
        budget: Budget,
    },
    /// A budget in bytes without sizes.
    #[error(
        "the {module} budget of {budget} is in bytes, but the bytes that a microbatch of it saves are not known: give \
         them, or the budget in microbatches (`2mb`)"
    )]
    NoSize {
        /// Whose.
        module: ModuleKind,
        /// The budget.
        budget: Budget,
    },
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
