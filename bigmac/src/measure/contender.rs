//! A schedule that is to be run on the clock and for real.

use thiserror::Error;

use crate::config::Pipeline;
use crate::data::StepPlan;
use crate::execute::{CostModel, Program};
use crate::train::{TrainError, program};
use bigmac_schedule::{LlmSchedule, Schedule};
use bigmac_schedule::{Simulation, simulate};

/// A step under a schedule: what each rank runs, and what the simulator says of it.
#[derive(Clone, Debug)]
pub struct Contender {
    /// The schedule's name.
    pub schedule: &'static str,
    /// The order of the LLM's chunks under it.
    pub llm: &'static str,
    /// What is run.
    pub program: Program,
    /// The same on the clock, in the time unit of the costs.
    pub simulation: Simulation,
}

/// Why a schedule is not run.
#[derive(Debug, Error)]
pub enum NotRun {
    /// It does not exist for the step, does not keep to a budget, or cannot run.
    #[error(transparent)]
    Train(Box<TrainError>),
    /// It wants other numbers of ranks.
    #[error("with ranks of its own for encoder and generator it cannot use exactly {ranks}: give more ranks")]
    Ranks {
        /// As many as there are.
        ranks: usize,
    },
}

impl<E: Into<TrainError>> From<E> for NotRun {
    fn from(error: E) -> Self {
        NotRun::Train(Box::new(error.into()))
    }
}

/// Lays a step out under a schedule on exactly `pipeline.ranks` ranks: where a schedule takes ranks for encoder and
/// generator alone, the LLM gets fewer.
///
/// # Errors
/// [`NotRun`]: why there is no such table.
pub fn contender(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
    schedule: &'static Schedule,
    llm: &'static LlmSchedule,
) -> Result<Contender, NotRun> {
    let pipeline = Pipeline {
        schedule: schedule.name().to_owned(),
        llm: llm.name().to_owned(),
        ranks: llm_ranks(plan, costs, pipeline, schedule)?,
        ..pipeline.clone()
    };
    let program = program(plan, costs, &pipeline)?;
    let simulation = simulate(&program.table, &program.workload);
    let simulation = simulation.map_err(|error| TrainError::Table(Box::new(error.into())))?;
    Ok(Contender { schedule: schedule.name(), llm: llm.name(), program, simulation })
}

/// The most LLM ranks with which the schedule needs `pipeline.ranks` in all.
fn llm_ranks(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
    schedule: &'static Schedule,
) -> Result<usize, NotRun> {
    for ranks in (1..=pipeline.ranks).rev() {
        let workload = costs.workload(plan, ranks, pipeline.chunks)?;
        if schedule.workload(&workload).ranks() == pipeline.ranks {
            return Ok(ranks);
        }
    }
    Err(NotRun::Ranks { ranks: pipeline.ranks })
}

impl Contender {
    /// Whether LLM backwards are split into input and weight gradients.
    pub fn is_split(&self) -> bool {
        self.program.is_split()
    }
}
