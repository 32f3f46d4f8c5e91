//! What every schedule implements and is built with.

use crate::check::{Budget, Limits, UnknownSize};
use crate::clock::{SimulateError, Simulation, simulate, total_cost};
use crate::names::UnknownName;
use crate::step::{Chain, ChunkPlacement, ModuleKind, Op, Table, Workload, WorkloadError};
use std::fmt::Debug;
use thiserror::Error;

/// A way to order a whole step: encoder, LLM and generator.
#[derive(Debug)]
pub struct Schedule {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) is_whole: bool,
    pub(crate) workload: fn(&Workload) -> Workload,
    /// Where the schedule takes ranks of its own for encoder and generator: its best chain on so many ranks in all.
    pub(crate) chain_within: Option<fn(&Workload, usize) -> Option<Chain>>,
    pub(crate) build: fn(&Workload, &Options) -> Result<Table, ScheduleError>,
}

impl Schedule {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it does, in half a line.
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// Whether it runs encoder and generator too, as training needs.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The workload as the schedule runs it over this order of the LLM's chunks, which its table is built and simulated
    /// for: chunks live where the order wants them; the LLM alone leaves items out, and a chain gives every layer a rank
    /// of its own.
    pub fn workload(&self, workload: &Workload, llm: &LlmSchedule) -> Workload {
        (self.workload)(&workload.clone().with_placement(llm.placement))
    }

    /// For a schedule that takes ranks of its own for encoder and generator: its best chain on exactly `ranks` ranks in
    /// all, where there is one, so that it can be compared with the others. None for schedules that take no more ranks
    /// than they are given.
    pub fn chain_within(&self, workload: &Workload, ranks: usize) -> Option<Option<Chain>> {
        self.chain_within.map(|chain| chain(workload, ranks))
    }

    /// Writes the schedule out, without communication; [`lower`](crate::lower) adds it.
    ///
    /// # Errors
    /// Where the workload or an option does not fit the schedule.
    pub fn build(&self, workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
        (self.build)(workload, options)
    }
}

/// An order of the LLM's chunks.
#[derive(Debug)]
pub struct LlmSchedule {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    /// How many chunks ranks hold.
    pub(crate) chunks: ChunksPerRank,
    /// Where they live.
    pub(crate) placement: ChunkPlacement,
    pub(crate) build: fn(&Workload, LlmOptions) -> Result<Table, ScheduleError>,
}

impl LlmSchedule {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it does, in half a line.
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// Which ranks the LLM's chunks live on in this order.
    pub fn placement(&self) -> ChunkPlacement {
        self.placement
    }

    /// The LLM's compute ops alone.
    ///
    /// # Errors
    /// Where the schedule does not exist for the number of chunks or microbatches, chunks do not live where it wants
    /// them, or an option does not fit it.
    pub fn build(&self, workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
        let chunks = workload.chunks_per_rank();
        let wanted = match self.chunks {
            ChunksPerRank::One => 1,
            ChunksPerRank::Two => 2,
            ChunksPerRank::Any => chunks,
        };
        if chunks != wanted {
            return Err(ScheduleError::Chunks { schedule: self.name, wanted, chunks });
        }
        if chunks > 1 && workload.placement() != self.placement {
            return Err(ScheduleError::Placement { schedule: self.name, wanted: self.placement });
        }
        (self.build)(workload, options)
    }
}

/// How many of the LLM's chunks a rank holds in an order of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunksPerRank {
    One,
    Two,
    Any,
}

/// What an order of the LLM's chunks is built with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LlmOptions {
    /// How many more forwards (of one chunk on one microbatch) than usual each rank runs before its first backward, as
    /// far as there are microbatches. It leaves that much time between a microbatch's last forward and its first
    /// backward.
    pub extra_warmup: usize,
    /// How many microbatches a rank runs through one chunk before it turns to its next one, where the order interleaves
    /// chunks; `None`: as many as there are ranks, or some more where they do not divide the microbatches.
    pub group: Option<usize>,
}

/// What a schedule is built with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The order of the LLM's chunks.
    pub llm: &'static LlmSchedule,
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
    /// Those of [`LlmSchedule::build`].
    pub fn llm_table(&self, workload: &Workload, extra_warmup: usize) -> Result<Table, ScheduleError> {
        self.llm.build(workload, LlmOptions { extra_warmup, group: self.llm_group })
    }

    /// Runs a table in which the LLM's ops have the order chosen.
    pub(crate) fn simulate(&self, table: &Table, workload: &Workload) -> Result<Simulation, ScheduleError> {
        let stuck = |source| ScheduleError::Llm { schedule: self.llm.name, source };
        simulate(table, workload).map_err(stuck)
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Why a schedule cannot be built.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)]
pub enum ScheduleError {
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A schedule of so many chunks per rank asked for another number of them.
    #[error(
        "the schedule '{schedule}' runs {wanted} LLM chunk{} per rank, but the workload has {chunks}: choose another LLM \
         schedule, or {wanted} chunk{} per rank",
        plural(*wanted),
        plural(*wanted)
    )]
    Chunks { schedule: &'static str, wanted: usize, chunks: usize },
    /// An order that needs more microbatches than there are.
    #[error(
        "the LLM schedule '{schedule}' needs at least {least} microbatches on {ranks} ranks, but the step has {given}"
    )]
    Microbatches { schedule: &'static str, ranks: usize, least: usize, given: usize },
    /// Chunks that do not live where the order of the LLM has them.
    #[error(
        "the schedule '{schedule}' needs the LLM's chunks placed as {wanted:?}: build it for its own 'Schedule::workload'"
    )]
    Placement { schedule: &'static str, wanted: ChunkPlacement },
    /// A schedule of a chain of stages on another workload.
    #[error("the workload is not a chain of stages: build the schedule for its own 'Schedule::workload'")]
    NoChain,
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Less memory than any order of this kind needs; `minimum` is in the unit of `asked`.
    #[error(
        "'{schedule}' cannot keep the {module}'s activations within {asked} per rank: it needs at least {minimum} for \
         this step"
    )]
    Budget { schedule: &'static str, module: ModuleKind, asked: Budget, minimum: Budget },
    #[error(transparent)]
    UnknownSize(#[from] UnknownSize),
    /// Groups of no microbatch: `of` is "LLM " or nothing.
    #[error("{of}groups of 0 microbatches were asked for: expected at least 1")]
    Group { of: &'static str },
    /// The order of the LLM's ops cannot run.
    #[error("the LLM schedule '{schedule}' does not run by itself: {source}")]
    Llm { schedule: &'static str, source: SimulateError },
}

impl ScheduleError {
    /// Whether a step of another shape would have done: the schedule is not for so many chunks, or so few microbatches.
    pub fn is_about_the_layout(&self) -> bool {
        matches!(self, ScheduleError::Chunks { .. } | ScheduleError::Microbatches { .. })
    }
}

/// T_ideal: the time of the chosen LLM schedule by itself plus all slots at their largest shares. Without a group it is
/// what a run with unlimited memory (`phased`) takes: one slot for the whole batch.
///
/// # Errors
/// Where the LLM schedule does not fit the workload.
pub fn ideal_time(workload: &Workload, options: &Options) -> Result<f64, ScheduleError> {
    let workload = workload.clone().with_placement(options.llm.placement);
    let table = options.llm_table(&workload.llm_only(), 0)?;
    let time = ideal_over(&table, &workload, options.group);
    time.map_err(|source| ScheduleError::Llm { schedule: options.llm.name(), source })
}

/// [`ideal_time`] over the LLM's ops in the order that they have in this table, whatever else it holds.
///
/// # Errors
/// Where the LLM's ops alone cannot run to their end.
pub fn ideal_over(table: &Table, workload: &Workload, group: Option<usize>) -> Result<f64, SimulateError> {
    let is_llm = |op: &&Op| op.units().next().is_some_and(|unit| unit.module.kind() == ModuleKind::Llm);
    let ranks = table.ranks.iter().map(|ops| ops.iter().filter(is_llm).cloned().collect());
    let simulation = simulate(&Table { ranks: ranks.collect() }, &workload.llm_only())?;
    Ok(simulation.time() + total_cost(workload, group.unwrap_or(workload.len())))
}
