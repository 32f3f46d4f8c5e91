//! From a step's plan to the table that its ranks run.

use super::TrainError;
use crate::config::Pipeline;
use crate::data::StepPlan;
use crate::execute::{CostModel, Program};
use crate::schedule::budget::module_budgets;
use crate::schedule::{Limits, Options, lower::lower, registry, validate::validate};

/// The program of a step under the configured schedule: built, lowered, validated. Every rank computes the same one.
///
/// # Errors
/// For an unknown schedule, one that doesn't fit, or a table that wouldn't run or keep to its budget.
pub fn program(plan: &StepPlan, costs: &CostModel, pipeline: &Pipeline) -> Result<Program, TrainError> {
    let workload = costs.workload(plan, pipeline.ranks, pipeline.chunks)?;
    let options = options(pipeline)?;
    let table = registry::schedule(&pipeline.schedule)?.build(&workload, &options)?;
    let table = lower(&table, &workload).map_err(|e| TrainError::Table(Box::new(e.into())))?;
    validate(&table, &workload, &options.limits).map_err(|e| TrainError::Table(Box::new(e)))?;
    Ok(Program::new(table, workload))
}

/// What the configured schedule is built with.
///
/// # Errors
/// For an unknown order of the LLM's chunks, or a budget that is written otherwise than one is.
pub fn options(pipeline: &Pipeline) -> Result<Options, TrainError> {
    let chosen = |group: usize| (group > 0).then_some(group);
    Ok(Options {
        llm: registry::llm_schedule(&pipeline.llm)?,
        llm_group: chosen(pipeline.llm_group),
        group: chosen(pipeline.group),
        limits: Limits { budget: module_budgets(&pipeline.budget)?, ..Limits::default() },
    })
}
