//! A schedule that is to be run on the clock and for real.

use super::MeasureError;
use crate::config::Pipeline;
use crate::cost::CostModel;
use crate::data::StepPlan;
use crate::execute::{ExecuteError, Program};
use bigmac_schedule::{LlmSchedule, Schedule, Simulation, simulate};

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

/// Lays a step out under a schedule on exactly `pipeline.ranks` ranks: where a schedule takes ranks for encoder and
/// generator alone, the LLM gets fewer.
///
/// # Errors
/// Where the schedule does not exist for the step, does not keep to a budget, or cannot run.
pub fn contender(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
    schedule: &'static Schedule,
    llm: &'static LlmSchedule,
) -> Result<Contender, MeasureError> {
    let pipeline = Pipeline {
        schedule: schedule.name().to_owned(),
        llm: llm.name().to_owned(),
        ranks: llm_ranks(plan, costs, pipeline, schedule, llm)?,
        ..pipeline.clone()
    };
    let program = Program::build(plan, costs, &pipeline, None)?;
    let simulation = simulate(&program.table, &program.workload).map_err(ExecuteError::from)?;
    Ok(Contender { schedule: schedule.name(), llm: llm.name(), program, simulation })
}

/// The most LLM ranks with which the schedule needs `pipeline.ranks` in all.
fn llm_ranks(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
    schedule: &'static Schedule,
    llm: &LlmSchedule,
) -> Result<usize, MeasureError> {
    for ranks in (1..=pipeline.ranks).rev() {
        let workload = costs.workload(plan, ranks, pipeline.chunks).map_err(ExecuteError::from)?;
        if schedule.workload(&workload, llm).ranks() == pipeline.ranks {
            return Ok(ranks);
        }
    }
    Err(MeasureError::Ranks { ranks: pipeline.ranks })
}
