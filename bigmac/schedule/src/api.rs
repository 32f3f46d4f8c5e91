//! What every schedule implements and is built with.

use std::fmt::Debug;

use thiserror::Error;

use crate::check::{Budget, Limits};
use crate::clock::{SimulateError, simulate, total_cost};
use crate::names::UnknownName;
use crate::step::{Module, ModuleKind, Op, Table, Workload, WorkloadError};

/// A way to order a whole step: encoder, LLM and generator.
pub trait Schedule: Sync + Debug {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, in half a line.
    fn summary(&self) -> &'static str;

    /// Writes the schedule out, without communication; [`lower`](crate::lower) adds it.
    ///
    /// # Errors
    /// Where the workload or an option does not fit the schedule.
    fn build(&self, workload: &Workload, options: &Options) -> Result<Table, ScheduleError>;

    /// Whether it runs encoder and generator too, as training needs.
    fn is_whole(&self) -> bool {
        true
    }

    /// The workload as the schedule runs it, which its table is built and simulated for: the LLM alone leaves items out,
    /// a chain gives every layer a rank of its own, others change nothing.
    fn workload(&self, workload: &Workload) -> Workload {
        workload.clone()
    }
}

/// An order of the LLM's chunks.
pub trait LlmSchedule: Sync + Debug {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, in half a line.
    fn summary(&self) -> &'static str;

    /// The LLM's compute ops alone.
    ///
    /// # Errors
    /// Where the schedule does not exist for the number of chunks, or an option does not fit it.
    fn build(&self, workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError>;
}

/// What an order of the LLM's chunks is built with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LlmOptions {
    /// How many more forwards (of one chunk on one microbatch) than usual each rank runs before its first backward, as
    /// far as there are microbatches. It leaves that much time between a microbatch's last forward and its first backward.
    pub extra_warmup: usize,
    /// How many microbatches a rank runs through one chunk before it turns to its next one, where the order interleaves
    /// chunks; `None`: as many as there are ranks, or some more where they do not divide the microbatches.
    pub group: Option<usize>,
}

/// What a schedule is built with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The order of the LLM's chunks.
    pub llm: &'static dyn LlmSchedule,
    /// How many microbatches the LLM schedule runs through one chunk before the next ([`LlmOptions::group`]).
    pub llm_group: Option<usize>,
    /// How many microbatches share a slot, at least 1; `None`: the schedule chooses.
    pub group: Option<usize>,
    /// What activations may take. Schedules that can trade memory for time stay within it; of all others it is only
    /// checked.
    pub limits: Limits,
}

impl Options {
    /// The LLM's ops alone, in the order chosen.
    ///
    /// # Errors
    /// As [`LlmSchedule::build`].
    pub fn llm_table(&self, workload: &Workload, extra_warmup: usize) -> Result<Table, ScheduleError> {
        self.llm.build(workload, LlmOptions { extra_warmup, group: self.llm_group })
    }
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ScheduleError {
    /// No schedule of that name.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A schedule of one chunk per rank asked for more.
    #[error(
        "the LLM schedule `{schedule}` runs one chunk per rank, but the workload has {chunks}: choose a schedule that \
         interleaves chunks, or one chunk per rank"
    )]
    Chunks {
        /// Its name.
        schedule: &'static str,
        /// Chunks per rank.
        chunks: usize,
    },
    /// A schedule of a chain on a workload that is none.
    #[error("the schedule `{schedule}` runs a chain of stages: build it for its own `Schedule::workload`")]
    NoChain {
        /// Its name.
        schedule: &'static str,
    },
    /// A step that no order can be taken from.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Less memory than any order of this kind needs.
    #[error(
        "`{schedule}` cannot keep the {module}'s activations within {asked} per rank: it needs at least {minimum} \
         for this step"
    )]
    Budget {
        /// Its name.
        schedule: &'static str,
        /// Whose activations.
        module: ModuleKind,
        /// What they may take.
        asked: Budget,
        /// What they take at least, in the same unit.
        minimum: Budget,
    },
    /// A budget in bytes of a module whose size is not known.
    #[error(
        "the {module} budget of {budget} is in bytes, but what a microbatch of the {module} saves is not known: give \
         the budget in microbatches (as in `2mb`), or the bytes of a microbatch"
    )]
    BudgetSize {
        /// Whose activations.
        module: ModuleKind,
        /// What they may take.
        budget: Budget,
    },
    /// Groups of no microbatch.
    #[error("groups of 0 microbatches were asked for: a slot needs at least 1")]
    Group,
    /// Groups of no microbatch in the LLM's order.
    #[error("LLM groups of 0 microbatches were asked for: a rank runs at least 1 through a chunk at a time")]
    LlmGroup,
    /// The order of the LLM's ops cannot run.
    #[error("the LLM schedule `{schedule}` does not run by itself: {source}")]
    Llm {
        /// Its name.
        schedule: &'static str,
        /// Where it stops.
        source: SimulateError,
    },
}

/// T_ideal: the time of the chosen LLM schedule by itself plus all slots at their largest shares. Without a group it is
/// what a run with unlimited memory (`phased`) takes: one slot for the whole batch.
///
/// # Errors
/// Where the LLM schedule does not fit the workload.
pub fn ideal_time(workload: &Workload, options: &Options) -> Result<f64, ScheduleError> {
    let llm = workload.llm_only();
    let table = options.llm_table(&llm, 0)?;
    let time = ideal_over(&table, workload, options.group);
    time.map_err(|source| ScheduleError::Llm { schedule: options.llm.name(), source })
}

/// [`ideal_time`] over the LLM's ops in the order that they have in this table, whatever else it holds.
///
/// # Errors
/// Where the LLM's ops alone cannot run to their end.
pub fn ideal_over(table: &Table, workload: &Workload, group: Option<usize>) -> Result<f64, SimulateError> {
    let is_llm = |op: &&Op| matches!(op, Op::Compute { module: Module::Llm(_), .. });
    let ranks = table.ranks.iter().map(|ops| ops.iter().filter(is_llm).cloned().collect());
    let simulation = simulate(&Table { ranks: ranks.collect() }, &workload.llm_only())?;
    Ok(simulation.time() + total_cost(workload, group.unwrap_or(workload.len())))
}
