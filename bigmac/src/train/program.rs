//! From a step's plan to the table that its ranks run.

use super::TrainError;
use crate::config::Pipeline;
use crate::data::StepPlan;
use crate::execute::{CostModel, Program};
use crate::schedule::{Limits, Options, lower::lower, registry, validate::validate};

/// The program of a step under the configured schedule: built, lowered, validated. Every rank computes the same one.
///
/// # Errors
/// For an unknown schedule, one that doesn't fit, or a table that wouldn't run.
pub fn program(plan: &StepPlan, costs: &CostModel, pipeline: &Pipeline) -> Result<Program, TrainError> {
    let workload = costs.workload(plan, pipeline.ranks, 1)?;
    let options = Options {
        llm: registry::llm_schedule(&pipeline.llm)?,
        group: Some(pipeline.group),
        ..Options::default()
    };
    let table = registry::schedule(&pipeline.schedule)?.build(&workload, &options)?;
    let table = lower(&table, &workload).map_err(|e| TrainError::Table(Box::new(e.into())))?;
    validate(&table, &workload, &Limits::default()).map_err(|e| TrainError::Table(Box::new(e)))?;
    Ok(Program::new(table, workload))
}
