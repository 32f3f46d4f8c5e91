//! What can go wrong while a step is laid out or runs.

use crate::data::DataError;
use bigmac_comm::CommError;
use bigmac_runtime::Context;
use bigmac_schedule::{
    BudgetError, ModuleKind, Rank, ScheduleError, SimulateError, Unit, ValidateError, WorkloadError,
};

/// Why a step ended early, or cannot run at all.
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
    /// An unknown schedule, or one that does not fit.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A text that is not a limit on activations.
    #[error("pipeline.budget: {0}")]
    Budget(#[from] BudgetError),
    /// A table that cannot run, or does not keep to its budget.
    #[error("the schedule's table cannot run: {0}")]
    Table(Box<ValidateError>),
    /// A loss that is not finite.
    #[error(
        "step {step}: the {part} loss is {value} on rank {rank} (microbatch {microbatch}); use a smaller train.lr, or look at \
         the data of that step"
    )]
    #[allow(missing_docs)]
    NotFinite { step: u64, part: &'static str, value: f64, rank: usize, microbatch: usize },
    /// A table that asks for more activation buffers than its own analysis planned.
    #[error(
        "rank {}: {unit:?} asks for an activation buffer, and all {planned} of the {kind} are in use; the table is not \
         the one that was planned", rank.0
    )]
    #[allow(missing_docs)]
    NoBuffer { rank: Rank, unit: Unit, kind: ModuleKind, planned: usize },
    /// A table whose op needs something that is not there.
    #[error("rank {}: {what} not found; validate the table before it runs", rank.0)]
    #[allow(missing_docs)]
    Missing { rank: Rank, what: String },
}

impl ExecuteError {
    pub(super) fn missing(ctx: &Context, what: String) -> Self {
        ExecuteError::Missing { rank: Rank(ctx.rank()), what }
    }
}

impl From<ValidateError> for ExecuteError {
    fn from(error: ValidateError) -> Self {
        ExecuteError::Table(Box::new(error))
    }
}

impl From<SimulateError> for ExecuteError {
    fn from(error: SimulateError) -> Self {
        ValidateError::from(error).into()
    }
}
