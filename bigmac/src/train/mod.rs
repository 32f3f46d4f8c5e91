//! Training: from a configuration to a model, with checkpoints, metrics and samples on the way.

mod ahead;
mod checkpoint;
mod collect;
mod error;
mod inputs;
mod layout;
mod learning;
mod metrics;
mod numbers;
mod optimizer;
mod rank;
mod reduce;
mod schedule;
mod session;
mod snapshot;
mod stopwatch;

pub use checkpoint::{Checkpoint, State, save};
pub use error::TrainError;
pub use inputs::{Inputs, tokenizer};
pub use layout::RunLayout;
pub use learning::{beginners, check_learns, gets_gradient};
pub use metrics::{MetricsFile, StepReport};
pub use numbers::{Gate, Numbers, Reduced, Totals};
pub use optimizer::{Optimizer, STATE_PARTS, UPDATES, Update, state_spec};
pub use reduce::reduce;
pub use schedule::learning_rate;
pub use session::{Session, open_gpu};
pub use snapshot::{Snapshot, state_name};

use crate::config;
use crate::data::DataError;
use crate::execute::Program;
use ahead::Ahead;
use bigmac_runtime::Error;
use bigmac_runtime::fs::write_atomically;
use bigmac_schedule::render::Trace;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The resolved configuration in a run's directory.
const CONFIG: &str = "config.toml";

/// Who is told what a run does. Called on rank 0, between steps.
pub trait Observer: Sync {
    /// A step is done.
    fn step(&self, report: &StepReport);

    /// Something about the run that its user should know.
    fn note(&self, sentence: &str);

    /// A step goes on without the samples of these pictures.
    fn skipped(&self, errors: &[DataError]);

    /// A checkpoint was written.
    fn saved(&self, path: &Path);

    /// It is time to look at what the model does: `step` steps are done.
    ///
    /// # Errors
    /// Those of the model and of files.
    fn samples(&self, session: &Session, snapshot: &Snapshot, step: u64) -> Result<(), TrainError>;

    /// A step was measured: one trace per rank.
    ///
    /// # Errors
    /// Those of files.
    fn timeline(
        &self,
        folder: &Path,
        program: &Program,
        traces: &[Trace],
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
/// [`TrainError`]; of several ranks' errors, the first cause, as [`TrainError::Ended`].
pub fn train(
    session: &Session,
    folder: &Path,
    resume: Option<&Checkpoint>,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome, TrainError> {
    if let Some(checkpoint) = resume {
        checkpoint.check_vocabulary(&session.shape)?;
        checkpoint.check_model(&session.config, true)?;
        let (done, steps) = (checkpoint.state().step, session.config.train.steps);
        if done > steps {
            let message = format!(
                "the run had done {done} steps at this checkpoint, but is to end after {steps}; ask for more with --steps"
            );
            return Err(Error::format(checkpoint.path(), message).into());
        }
    }
    if !resume.is_some_and(|checkpoint| is_of_run(checkpoint, folder)) {
        check_unused(folder)?;
    }
    check_learns(session)?;
    let start = match resume {
        Some(_) => None,
        None => Inputs::start(&session.config, &session.shape)?,
    };
    let layout = RunLayout::of(session)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let resolved = config::write(&session.config);
    write_atomically(&folder.join(CONFIG), |w| w.write_all(resolved.as_bytes()))?;
    let ranks = layout.placement.ranks();
    let weights = resume.or(start.as_ref());
    let (layout, ahead) = (&layout, &Ahead::new(session, &layout, ranks));
    let shared = rank::Shared { session, layout, ahead, resume, weights, folder, stop, observer };
    let first = resume.map_or(0, |checkpoint| checkpoint.state().step);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| ahead.run(first));
        let ended = session.on_ranks(ranks, |ctx, comm| rank::run_rank(&shared, ctx, comm));
        ahead.close();
        ended
    });
    let ended = ended.map_err(|cause| {
        // Where the folder cannot be read any more, that is part of the cause.
        let newest = checkpoint::list(&folder.join(checkpoint::FOLDER)).ok().and_then(|mut all| all.pop());
        TrainError::Ended { cause: Box::new(cause.into()), newest }
    })?;
    Ok(ended.into_iter().next().unwrap_or(Outcome { step: 0, snapshot: None }))
}

/// True when `folder` is the run that wrote the checkpoint.
fn is_of_run(checkpoint: &Checkpoint, folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    checkpoint.run().is_some_and(|run| real(&run).is_some_and(|run| Some(run) == real(folder)))
}

/// Checks that a new run would write over nothing in `folder`. What an attempt left that failed before its first step
/// (its configuration, no metrics) may be written over.
fn check_unused(folder: &Path) -> Result<(), TrainError> {
    let exists = |name: &str| folder.join(name).exists();
    let metrics = std::fs::metadata(folder.join(metrics::FILE)).map(|m| m.len()).ok();
    let what = match metrics {
        _ if exists(checkpoint::FOLDER) => "checkpoints of a run",
        Some(1..) => "metrics of a run",
        None if exists(CONFIG) => "a config.toml that no run wrote",
        _ => return Ok(()),
    };
    let message = format!(
        "the directory already holds {what}; go on with a run by --resume, or write elsewhere with --out"
    );
    Err(Error::format(folder, message).into())
}
