//! Training: from a configuration to a model, with checkpoints, metrics and samples on the way.

mod ahead;
mod checkpoint;
mod choice;
mod collect;
mod error;
mod folder;
mod groups;
mod inputs;
mod layout;
mod learning;
mod lock;
mod lost;
mod metrics;
mod numbers;
mod optimizer;
mod optimizer_state;
mod patient;
mod rank;
mod reduce;
mod schedule;
mod session;
mod snapshot;
mod stopwatch;

pub use checkpoint::{
    Checkpoint, Damaged, DataState, Saved, State, Verify, has_checkpoints, newest_whole, save,
};
pub use choice::Choice;
pub use error::{Fault, TrainError};
pub use folder::RunFolder;
pub use groups::{Grid, Groups};
pub use inputs::{Inputs, tokenizer};
pub use layout::RunLayout;
pub use learning::{beginners, check_learns, gets_gradient};
pub use metrics::{MetricsFile, StepReport};
pub use numbers::{Gate, Numbers, Reduced, Totals};
pub use optimizer::{Optimizer, Stored, Update};
pub use optimizer_state::{STATE_PARTS, UPDATES, state_name, state_spec};
pub use reduce::reduce;
pub use schedule::learning_rate;
pub use session::{Session, open_gpu};
pub use snapshot::Snapshot;

use crate::data::DataError;
use crate::execute::Program;
use ahead::{Ahead, Here};
use bigmac_comm::Communicator;
use bigmac_comm::control::Position;
use bigmac_runtime::{Context, Error};
use bigmac_schedule::render::Trace;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Who is told what a run does. Called on rank 0, between steps.
pub trait Observer: Sync {
    /// A step is done.
    fn step(&self, report: &StepReport);

    /// A step goes on without the samples of these pictures.
    fn skipped(&self, errors: &[DataError]);

    /// A checkpoint was written.
    fn saved(&self, path: &Path);

    /// It is time to look at what the model does: `step` steps are done. Files go to the run's directory, `folder`.
    ///
    /// # Errors
    /// Those of the model and of files.
    fn samples(
        &self,
        folder: &Path,
        session: &Session,
        snapshot: &Snapshot,
        step: u64,
    ) -> Result<(), TrainError>;

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

/// One rank of a run whose ranks are processes.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// What it computes on.
    pub ctx: &'a Context,
    /// All ranks.
    pub comm: &'a dyn Communicator,
    /// How many hosts they are on.
    pub hosts: usize,
    /// Where other ranks learn what this one is doing.
    pub position: &'a Position,
}

/// A run that can begin: all that can be refused has been looked at.
#[derive(Debug)]
pub struct Training<'a> {
    session: &'a Session,
    layout: RunLayout,
    data: DataState,
    resume: Option<&'a Checkpoint>,
    /// Where weights come from, where `resume` does not say it.
    start: Option<Checkpoint>,
}

impl<'a> Training<'a> {
    /// Prepares a run from the start, or one that goes on from `resume`. `verify` is for the checkpoint that
    /// `model.from` names.
    ///
    /// # Errors
    /// Where nothing can learn; for a checkpoint of another model, or of more steps than the run is to have; those of
    /// [`RunLayout::of`].
    pub fn prepare(
        session: &'a Session,
        resume: Option<&'a Checkpoint>,
        verify: Verify,
    ) -> Result<Self, TrainError> {
        check_learns(session)?;
        if let Some(checkpoint) = resume {
            checkpoint.check_model(&session.config, true)?;
            checkpoint.check_shape(&session.shape)?;
            let (done, steps) = (checkpoint.state().step, session.config.train.steps);
            if done > steps {
                let message = format!(
                    "the run had done {done} steps at this checkpoint, but is to end after {steps}; ask for more with --steps"
                );
                return Err(Error::format(checkpoint.path(), message).into());
            }
        }
        let start = match resume {
            Some(_) => None,
            None => Inputs::start(&session.config, &session.shape, verify)?,
        };
        let (layout, data) = (RunLayout::of(session)?, DataState::of(session.planner.dataset()));
        Ok(Training { session, layout, data, resume, start })
    }

    /// Sentences on what is not as it was at the checkpoint: what learns, and what it learns from.
    ///
    /// # Errors
    /// For a shape that does not fit.
    pub fn notes(&self) -> Result<Vec<String>, TrainError> {
        let Some(checkpoint) = self.resume else { return Ok(Vec::new()) };
        let mut notes = beginners(checkpoint, &self.session.shape)?;
        notes.extend(self.changed(&checkpoint.state().data));
        Ok(notes)
    }

    fn changed(&self, before: &DataState) -> Option<String> {
        let (here, there) = (self.data.samples, before.samples);
        let counts = if here == there { format!("{here}") } else { format!("{here}, and were {there}") };
        (*before != self.data).then(|| {
            let file = self.session.planner.dataset().file.display();
            format!("the samples of {file} have changed since the checkpoint ({counts}): the run goes on with what is there now")
        })
    }

    /// How the run's ranks are numbered, when their processes run on so many `hosts`.
    pub fn grid(&self, hosts: usize) -> Grid {
        let pipeline = &self.session.config.pipeline;
        Grid::new(pipeline.dp, self.layout.placement.ranks(), pipeline.order, hosts)
    }

    /// Checks that so many processes are as many as the run has ranks.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub fn check_ranks(&self, processes: usize) -> Result<(), TrainError> {
        let grid = self.grid(1);
        if grid.ranks() == processes { Ok(()) } else { Err(TrainError::Ranks { grid, given: processes }) }
    }

    /// Trains in `folder`, all ranks as threads of this process, until the last step or until `stop` becomes true, which
    /// is looked at between steps; then a checkpoint is written.
    ///
    /// # Errors
    /// [`TrainError`]; of several ranks' errors, the first cause, as [`TrainError::Ended`].
    pub fn run(
        &self,
        folder: &RunFolder,
        stop: &AtomicBool,
        observer: &dyn Observer,
    ) -> Result<Outcome, TrainError> {
        folder.write_config(&self.session.config)?;
        let grid = self.grid(1);
        let here = Here { grid, ranks: 0..grid.ranks(), others: None };
        self.train(here, folder.path(), None, stop, observer, |shared| {
            self.session.on_ranks(grid.ranks(), |ctx, comm| rank::run_rank(shared, ctx, comm))
        })
    }

    /// As [`Training::run`], as one rank among those of other processes, which all make the same call. Rank 0 alone
    /// writes to `folder`, whose configuration it has written already, and speaks to the observer.
    ///
    /// # Errors
    /// As [`Training::run`]; [`TrainError::Ranks`] where the configuration is for another number of ranks.
    pub fn run_as(
        &self,
        process: &Process<'_>,
        folder: &Path,
        stop: &AtomicBool,
        observer: &dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let Process { ctx, comm, hosts, position } = *process;
        let (grid, rank) = (self.grid(hosts), comm.rank());
        self.check_ranks(comm.size())?;
        // Steps are laid out by a thread of their own, whose messages come in an order of their own.
        let others = Some((ctx, comm.split(0, rank as i64)?));
        let here = Here { grid, ranks: rank..rank + 1, others };
        self.train(here, folder, Some(position), stop, observer, |shared| {
            Ok::<_, TrainError>(vec![rank::run_rank(shared, ctx, comm)?])
        })
    }

    /// Runs the ranks of this process, while steps are laid out ahead of them.
    fn train<E: Into<TrainError>>(
        &self,
        here: Here<'_>,
        folder: &Path,
        position: Option<&Position>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        ranks: impl FnOnce(&rank::Shared<'_>) -> Result<Vec<Outcome>, E>,
    ) -> Result<Outcome, TrainError> {
        let Training { session, layout, data, resume, start } = self;
        let grid = here.grid;
        let ahead = &Ahead::new(session, layout, here);
        let (resume, weights) = (*resume, resume.or(start.as_ref()));
        let files = rank::Files { data, resume, weights, folder };
        let shared = rank::Shared { session, layout, grid, files, ahead, position, stop, observer };
        let first = resume.map_or(0, |checkpoint| checkpoint.state().step);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| ahead.run(first));
            let ended = ranks(&shared);
            ahead.close();
            ended
        });
        let ended = ended.map_err(|cause| {
            // Where the folder cannot be read any more, that is part of the cause.
            let newest = checkpoint::list::list(folder).ok().and_then(|mut all| all.pop());
            let (run, newest) = (folder.to_owned(), newest.map(|(_, path)| path));
            TrainError::Ended { cause: Box::new(cause.into()), run, newest }
        })?;
        Ok(ended.into_iter().next().unwrap_or(Outcome { step: 0, snapshot: None }))
    }
}
