//! Training: from a configuration to a model, with checkpoints, metrics and samples on the way.

mod checkpoint;
mod error;
mod metrics;
mod optimizer;
mod program;
mod rank;
mod reduce;
mod schedule;
mod session;
mod snapshot;

pub use checkpoint::{Checkpoint, State, save};
pub use error::TrainError;
pub use metrics::{MetricsFile, StepReport};
pub use optimizer::{Optimizer, STATE_PARTS};
pub use program::program;
pub use rank::step_task;
pub use reduce::{Totals, reduce};
pub use schedule::learning_rate;
pub use session::{SHAPES_FOLDER, Session, tokenizer};
pub use snapshot::{Snapshot, state_name};

use crate::config;
use crate::execute::Program;
use bigmac_comm::{RankFailure, run_ranks};
use bigmac_runtime::Error;
use bigmac_runtime::fs::write_atomically;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Who is told what a run does. Called on rank 0, between steps.
pub trait Observer: Sync {
    /// A step is done.
    fn step(&self, report: &StepReport);

    /// A checkpoint was written.
    fn saved(&self, path: &Path);

    /// It is time to look at what the model does: `step` steps are done.
    ///
    /// # Errors
    /// Those of the model and of files.
    fn samples(&self, session: &Session, snapshot: &Snapshot, step: u64) -> Result<(), TrainError>;

    /// A step was measured: start and end of every op of every rank, in seconds.
    ///
    /// # Errors
    /// Those of files.
    fn timeline(
        &self,
        folder: &Path,
        program: &Program,
        spans: &[Vec<(f64, f64)>],
        step: u64,
    ) -> Result<(), TrainError>;
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// What was learned; none when the run was stopped before its last step.
    pub snapshot: Option<Snapshot>,
}

/// Trains in `folder`, from the start or from `resume`, until the last step or until `stop` becomes true, which is
/// looked at between steps; then a checkpoint is written.
///
/// # Errors
/// [`TrainError`]; of several ranks' errors, the first cause.
pub fn train(
    session: &Session,
    folder: &Path,
    resume: Option<&Checkpoint>,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome, TrainError> {
    if resume.is_none() && folder.join("checkpoints").exists() {
        return Err(TrainError::Exists { path: folder.to_owned() });
    }
    if let Some(checkpoint) = resume {
        checkpoint.check_model(&session.config)?;
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let resolved = config::write(&session.config);
    write_atomically(&folder.join("config.toml"), |w| w.write_all(resolved.as_bytes()))?;
    let pipeline = &session.config.pipeline;
    let timeout = Duration::from_secs_f64(pipeline.timeout);
    let shared = rank::Shared { session, resume, folder, stop, observer };
    let ended = run_ranks(pipeline.ranks, timeout, |comm| rank::run_rank(&shared, &comm)).map_err(
        |error| match error.cause {
            RankFailure::Failed(cause) => cause,
            other => TrainError::Rank { rank: error.rank, message: other.to_string() },
        },
    )?;
    let mut ended = ended.into_iter();
    let first = ended.next();
    Ok(first.map_or(Outcome { step: 0, snapshot: None }, |e| Outcome { step: e.step, snapshot: e.snapshot }))
}
