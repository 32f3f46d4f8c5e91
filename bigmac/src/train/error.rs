//! What can go wrong in a run.

use crate::config::ConfigError;
use crate::data::DataError;
use crate::execute::ExecuteError;
use crate::schedule::ScheduleError;
use crate::schedule::validate::ValidateError;
use bigmac_comm::CommError;
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
    /// A table that can't run.
    #[error("the schedule's table is wrong: {0}")]
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
    #[error("{} already holds a run; go on with it by --resume, or write elsewhere with --out", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A gradient that is no number although every loss is one.
    #[error(
        "step {step}: the gradient's norm is {norm}; the last checkpoint is kept: resume from it with a smaller train.lr"
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
        "the tokenizer has {tokenizer} tokens, the model's vocabulary {model}; use the tokenizer that the model was trained with"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Entries of the model.
        model: usize,
    },
}
