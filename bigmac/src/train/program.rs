//! From a step's plan to the table that its ranks run.

use super::TrainError;
use crate::config::Pipeline;
use crate::data::StepPlan;
use crate::execute::{CostModel, Program};
use bigmac_schedule::module_budgets;
use bigmac_schedule::{
    Budget, Chain, Limits, Microbatch, ModuleKind, Options, PerModule, Rank, Workload, lower, registry,
    validate,
};
use std::collections::BTreeMap;

/// The program of a step under the configured schedule: built, lowered, validated. Every rank computes the same one.
///
/// A schedule that cuts all modules into a chain cuts it for this step; in a run, where weights have to stay where they are,
/// see [`program_on`].
///
/// # Errors
/// For an unknown schedule, one that doesn't fit, or a table that wouldn't run or keep to its budget.
pub fn program(plan: &StepPlan, costs: &CostModel, pipeline: &Pipeline) -> Result<Program, TrainError> {
    program_on(plan, costs, pipeline, None)
}

/// As [`program`], with the modules where `chain` says, if the schedule runs on one.
///
/// # Errors
/// As [`program`].
pub fn program_on(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
    chain: Option<&Chain>,
) -> Result<Program, TrainError> {
    let mut options = options(pipeline)?;
    let schedule = registry::schedule(&pipeline.schedule)?;
    let workload = costs.workload(plan, pipeline.ranks, pipeline.chunks)?;
    let in_bytes = |kind: &ModuleKind| matches!(options.limits.budget[*kind], Some(Budget::Bytes(_)));
    let sized = ModuleKind::ALL.iter().any(in_bytes) || costs.rates.per_byte > 0.0;
    let workload = match chain {
        Some(chain) => workload.with_chain(chain.clone()),
        None => schedule.workload(&workload),
    };
    let workload = if sized { costs.with_sizes(plan, workload)? } else { workload };
    options.limits.microbatch_bytes = microbatch_bytes(&workload);
    let table = schedule.build(&workload, &options)?;
    let table = lower(&table, &workload).map_err(|e| TrainError::Table(Box::new(e.into())))?;
    validate(&table, &workload, &options.limits).map_err(|e| TrainError::Table(Box::new(e)))?;
    Ok(Program::new(table, workload))
}

/// Per module, the most bytes that a microbatch saves on a rank, where sizes are known.
fn microbatch_bytes(workload: &Workload) -> PerModule<Option<u64>> {
    let mut sums = BTreeMap::<(Microbatch, ModuleKind, Option<Rank>), u64>::new();
    for unit in workload.units() {
        let Some(saved) = workload.saved(unit) else { return PerModule::default() };
        let home = workload.home(unit.module);
        *sums.entry((unit.microbatch(), unit.module.kind(), home)).or_default() += saved;
    }
    let mut most = PerModule::<Option<u64>>::default();
    for ((_, kind, _), bytes) in sums {
        most[kind] = most[kind].max(Some(bytes));
    }
    most
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
