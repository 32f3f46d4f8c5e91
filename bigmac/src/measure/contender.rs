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
    let (schedule_name, llm_name) = (schedule.name().to_owned(), llm.name().to_owned());
    let pipeline = Pipeline { schedule: schedule_name, llm: llm_name, ..pipeline.clone() };
    let workload = costs.workload(plan, pipeline.ranks, pipeline.chunks).map_err(ExecuteError::from)?;
    let chain = match schedule.chain_within(&workload, pipeline.ranks) {
        Some(None) => return Err(MeasureError::Ranks { ranks: pipeline.ranks }),
        Some(chain) => chain,
        None => None,
    };
    let program = Program::build(plan, costs, &pipeline, chain.as_ref())?;
    let simulation = simulate(&program.table, &program.workload).map_err(ExecuteError::from)?;
    Ok(Contender { schedule: schedule.name(), llm: llm.name(), program, simulation })
}
