//! What can go wrong in a run.

use crate::data::DataError;
use crate::execute::ExecuteError;
use crate::profile::ProfileError;
use bigmac_comm::{CommError, RankError, RankFailure};
use std::path::PathBuf;

/// Why a run ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An operator, an allocation, a file, or a checkpoint that does not fit.
    #[error(transparent)]
    Runtime(#[from] bigmac_runtime::Error),
    /// A step, or its schedule.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A peer.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A profile that cannot be used.
    #[error("pipeline.profile = '{}': {cause}", path.display())]
    #[allow(missing_docs)]
    Profile { path: PathBuf, cause: Box<ProfileError> },
    /// A schedule without encoder and generator.
    #[error(
        "the schedule '{schedule}' leaves encoder and generator out: simulate it, or train with another, such as 'nested'"
    )]
    #[allow(missing_docs)]
    LlmOnly { schedule: &'static str },
    /// A rank that ended without an error of its own.
    #[error("rank {rank} {message}")]
    #[allow(missing_docs)]
    Rank { rank: usize, message: String },
    /// A run that ended early. The newest checkpoint, if there is one, is whole.
    #[error("{cause}; {}", go_on(newest))]
    #[allow(missing_docs)]
    Ended { cause: Box<TrainError>, newest: Option<PathBuf> },
    /// A checkpoint that could not be written.
    #[error("could not write the checkpoint {}: {cause}; make room there, or choose another --out", path.display())]
    #[allow(missing_docs)]
    Save { path: PathBuf, cause: Box<TrainError> },
    /// Weights that are of no use any more: no checkpoint is replaced by them.
    #[error(
        "after step {step} the parameter '{parameter}' has values that are not finite, or too large to compute with; use a \
         smaller train.lr"
    )]
    #[allow(missing_docs)]
    Weights { step: u64, parameter: String },
    /// A gradient that is not finite although every loss is.
    #[error(
        "step {step}: the gradient's norm is {norm}; use a smaller train.lr, or look at the data of that step"
    )]
    #[allow(missing_docs)]
    Gradient { step: u64, norm: f64 },
    /// What is not frozen gets no gradient from any sample.
    #[error(
        "nothing can learn: {frozen} {} frozen, and no sample of {} has {lacks}; unfreeze a module \
         (model.llm.frozen = false), or add such samples",
        if frozen.contains(" and ") { "are" } else { "is" },
        data.display()
    )]
    #[allow(missing_docs)]
    NothingLearns { frozen: String, lacks: &'static str, data: PathBuf },
    /// Nothing to evaluate on.
    #[error(
        "the data set has no held-out samples; put a heldout.jsonl beside the training file, or name one in data.heldout"
    )]
    NoHeldOut,
}

impl From<RankError<TrainError>> for TrainError {
    /// The rank's own error where it has one.
    fn from(error: RankError<TrainError>) -> Self {
        match error.cause {
            RankFailure::Failed(cause) => cause,
            other => TrainError::Rank { rank: error.rank, message: other.to_string() },
        }
    }
}

fn go_on(newest: &Option<PathBuf>) -> String {
    match newest {
        Some(path) => {
            format!("the newest checkpoint is kept: go on from it with --resume {}", path.display())
        }
        None => "no checkpoint was written before".into(),
    }
}
