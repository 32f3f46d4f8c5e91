//! What can go wrong in a run.

use super::Grid;
use crate::data::DataError;
use crate::execute::ExecuteError;
use crate::profile::ProfileError;
use crate::value::ValueError;
use bigmac_comm::{CommError, RankError, RankFailure};
use bigmac_runtime::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a run ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A configuration whose model takes more memory than there is.
    #[error(transparent)]
    Value(#[from] ValueError),
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
    /// A run's directory that another process trains in.
    #[error("{} is in use by {by}; wait for it to end, stop it, or write elsewhere with --out", run.display())]
    #[allow(missing_docs)]
    InUse { run: PathBuf, by: String },
    /// A run that another process began in the same moment.
    #[error("another process has begun the run {} meanwhile; start again to go on with it", run.display())]
    #[allow(missing_docs)]
    Begun { run: PathBuf },
    /// A run whose checkpoints are all damaged or incomplete; the newest first.
    #[error("{} has no checkpoint that can be used: {}", run.display(), listed(wrong))]
    #[allow(missing_docs)]
    NoneWhole { run: PathBuf, wrong: Vec<TrainError> },
    /// A rank that ended without an error of its own.
    #[error("rank {rank} {message}")]
    #[allow(missing_docs)]
    Rank { rank: usize, message: String },
    /// A run that ended early. The newest checkpoint, if there is one, is whole.
    #[error("{cause}; {}", go_on(run, newest.as_deref()))]
    #[allow(missing_docs)]
    Ended { cause: Box<TrainError>, run: PathBuf, newest: Option<PathBuf> },
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
    /// Processes that are not as many as the configuration's ranks.
    #[error(
        "pipeline.dp = {} times {} ranks of a pipeline are {} ranks, but {given} processes were started; start {} or change \
         --dp or --pp", grid.replicas, grid.stages, grid.ranks(), grid.ranks()
    )]
    #[allow(missing_docs)]
    Ranks { grid: Grid, given: usize },
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

fn go_on(run: &Path, newest: Option<&Path>) -> String {
    match newest {
        Some(path) => {
            format!(
                "the newest checkpoint, {}, is kept: go on with --resume {}",
                path.display(),
                run.display()
            )
        }
        None => "no checkpoint was written before".into(),
    }
}

fn listed(errors: &[TrainError]) -> String {
    errors.iter().map(TrainError::to_string).collect::<Vec<_>>().join("; ")
}

/// Whose fault an error is, which tells whether the same call can succeed the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The configuration, the data or a checkpoint: the same call fails again.
    Input,
    /// A peer was lost: the same call can succeed.
    Peer,
    /// Anything else: no space left, weights that are of no use any more.
    Other,
}

impl TrainError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            TrainError::Data(error) => Fault::of_data(error),
            TrainError::Runtime(error) => Fault::of_runtime(error),
            TrainError::Execute(error) => Fault::of_step(error),
            TrainError::Comm(error) => Fault::of_peer(error),
            TrainError::Ended { cause, .. } => cause.fault(),
            TrainError::Profile { .. }
            | TrainError::LlmOnly { .. }
            | TrainError::NoneWhole { .. }
            | TrainError::Value(_)
            | TrainError::NothingLearns { .. }
            | TrainError::Ranks { .. }
            | TrainError::NoHeldOut => Fault::Input,
            TrainError::Begun { .. } => Fault::Peer,
            TrainError::InUse { .. }
            | TrainError::Rank { .. }
            | TrainError::Save { .. }
            | TrainError::Weights { .. }
            | TrainError::Gradient { .. } => Fault::Other,
        }
    }
}

impl Fault {
    fn of_step(error: &ExecuteError) -> Fault {
        match error {
            ExecuteError::Runtime(error) => Fault::of_runtime(error),
            ExecuteError::Data(error) => Fault::of_data(error),
            ExecuteError::Comm(error) => Fault::of_peer(error),
            ExecuteError::Workload(_)
            | ExecuteError::Schedule(_)
            | ExecuteError::Budget(_)
            | ExecuteError::Table(_) => Fault::Input,
            ExecuteError::NotFinite { .. } | ExecuteError::NoBuffer { .. } | ExecuteError::Missing { .. } => {
                Fault::Other
            }
        }
    }

    fn of_peer(error: &CommError) -> Fault {
        match error {
            CommError::Poisoned { .. } | CommError::Timeout { .. } => Fault::Peer,
            _ => Fault::Other,
        }
    }

    /// Of a data set.
    pub fn of_data(error: &DataError) -> Fault {
        match error {
            DataError::Read { source, .. } | DataError::Write { source, .. } => Fault::of_file(source),
            DataError::File(error) => Fault::of_runtime(error),
            _ => Fault::Input,
        }
    }

    /// Of tensors, files or devices.
    pub fn of_runtime(error: &Error) -> Fault {
        match error {
            Error::Io { source, .. } => Fault::of_file(source),
            Error::Format { .. } | Error::Argument { .. } => Fault::Input,
            _ => Fault::Other,
        }
    }

    /// Of a file: a path that leads nowhere leads nowhere the next time; a disk may have space then.
    pub fn of_file(error: &io::Error) -> Fault {
        use ErrorKind::{
            AlreadyExists, InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        };
        match error.kind() {
            AlreadyExists | InvalidData | InvalidInput | IsADirectory | NotADirectory | NotFound
            | PermissionDenied => Fault::Input,
            _ => Fault::Other,
        }
    }
}
