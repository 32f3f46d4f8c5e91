//! What can go wrong in a run.

use crate::config::ConfigError;
use crate::data::DataError;
use crate::execute::ExecuteError;
use crate::profile::ProfileError;
use bigmac_comm::{CommError, RankError, RankFailure};
use bigmac_schedule::BudgetError;
use bigmac_schedule::ScheduleError;
use bigmac_schedule::ValidateError;
use std::path::PathBuf;

/// Why a run ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An operator, an allocation or a file.
    #[error(transparent)]
    Runtime(#[from] bigmac_runtime::Error),
    /// A step.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A peer.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// No such schedule, or it doesn't fit.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A limit on activations that is none.
    #[error("pipeline.budget: {0}")]
    Budget(#[from] BudgetError),
    /// A profile that can't be used.
    #[error("pipeline.profile = '{}': {cause}", path.display())]
    Profile {
        /// Its file.
        path: PathBuf,
        /// Why.
        cause: Box<ProfileError>,
    },
    /// A schedule without encoder and generator.
    #[error(
        "the schedule `{schedule}` leaves encoder and generator out: simulate it, or train with another, such as `nested`"
    )]
    LlmOnly {
        /// Its name.
        schedule: &'static str,
    },
    /// A table that can't run.
    #[error("the schedule's table can't run: {0}")]
    Table(Box<ValidateError>),
    /// A rank that ended without an error of its own.
    #[error("rank {rank} {message}")]
    Rank {
        /// The rank.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// A checkpoint of another model.
    #[error(
        "{}: the checkpoint's {key} is {here}, the run's is {wanted}; resume with the checkpoint's own configuration, or start a new run",
        path.display()
    )]
    OtherModel {
        /// The checkpoint.
        path: PathBuf,
        /// The key that differs.
        key: String,
        /// Its value in the checkpoint.
        here: String,
        /// Its value in the run.
        wanted: String,
    },
    /// A run's directory that already holds one.
    #[error("{} already holds {what}; go on with a run by --resume, or write elsewhere with --out", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
        /// What of a run is there.
        what: &'static str,
    },
    /// A run that was to end before the step that it is resumed at.
    #[error(
        "{}: the checkpoint has {done} steps behind it, and the run was to have {steps} in all; ask for more with --steps",
        path.display()
    )]
    Behind {
        /// The checkpoint.
        path: PathBuf,
        /// Steps done.
        done: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// A run that ended early.
    #[error("{cause}; {}", go_on(newest))]
    Ended {
        /// Why.
        cause: Box<TrainError>,
        /// The newest checkpoint that there is, which is whole.
        newest: Option<PathBuf>,
    },
    /// A checkpoint that couldn't be written.
    #[error("could not write the checkpoint {}: {cause}; make room there, or choose another --out", path.display())]
    Save {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        cause: Box<TrainError>,
    },
    /// Weights that nothing can be computed with any more: no checkpoint is to make room for them.
    #[error(
        "after step {step} the parameter '{parameter}' has values that are no numbers, or too large to compute with; use a \
         smaller train.lr"
    )]
    Weights {
        /// The step, from 0.
        step: u64,
        /// The first such parameter.
        parameter: String,
    },
    /// A gradient that is no number although every loss is one.
    #[error(
        "step {step}: the gradient's norm is {norm}; use a smaller train.lr, or look at the data of that step"
    )]
    Gradient {
        /// The step, from 0.
        step: u64,
        /// The norm.
        norm: f64,
    },
    /// Nothing to evaluate on.
    #[error(
        "the data set has no held-out samples; put a heldout.jsonl beside the training file, or name one in data.heldout"
    )]
    NoHeldOut,
    /// A vocabulary that the model doesn't have.
    #[error(
        "{}: the model has a vocabulary of {model}, and the tokenizer needs one of {tokenizer}; name the tokenizer that it was \
         trained with in data.tokenizer", path.display()
    )]
    Vocabulary {
        /// The model's checkpoint.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Entries of the model.
        model: usize,
    },
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
