//! What can go wrong while a step runs.

use crate::data::DataError;
use bigmac_comm::CommError;
use bigmac_schedule::{ModuleKind, Rank, Unit, Value, WorkloadError};

/// Why a step ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// An operator, an allocation or a file.
    #[error(transparent)]
    Runtime(#[from] bigmac_runtime::Error),
    /// A peer or a message.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A picture or the data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The shape of a step.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A loss that is no number.
    #[error(
        "step {step}: the {part} loss is {value} on rank {rank} (microbatch {microbatch}); use a smaller train.lr, or look at \
         the data of that step"
    )]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// `token` or `drawing`.
        part: &'static str,
        /// Its value.
        value: f64,
        /// The rank that computed it.
        rank: usize,
        /// The microbatch.
        microbatch: usize,
    },
    /// A table that asks for more activation buffers than its own analysis planned.
    #[error("rank {}: {unit:?} asks for an activation buffer, and all {planned} of the {kind} are in use; the table is not the one that was planned", rank.0)]
    NoBuffer {
        /// The rank.
        rank: Rank,
        /// Who asked.
        unit: Unit,
        /// The module.
        kind: ModuleKind,
        /// Buffers planned.
        planned: usize,
    },
    /// A table whose op needs something that is not there.
    #[error("rank {}: {what} is needed and not there; validate the table before it is run", rank.0)]
    Missing {
        /// The rank.
        rank: Rank,
        /// The value or the unit's saved activations.
        what: String,
    },
}

impl ExecuteError {
    pub(super) fn missing_value(rank: Rank, value: Value) -> Self {
        ExecuteError::Missing { rank, what: format!("{value:?}") }
    }
}
