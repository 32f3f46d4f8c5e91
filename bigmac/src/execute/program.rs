//! From a step's plan to the table that its ranks run.

use super::error::ExecuteError;
use super::sizes::with_sizes;
use super::task::StepTask;
use crate::config::Pipeline;
use crate::cost::CostModel;
use crate::data::StepPlan;
use crate::model::RankModules;
use bigmac_runtime::Context;
use bigmac_schedule::memory::{BufferPlan, Change, plan_buffers, walk};
use bigmac_schedule::{
    Budget, Chain, Limits, ModuleKind, Options, Phase, Table, Unit, Workload, lower, module_budgets,
    registry, validate,
};
use std::collections::HashMap;

/// A step's table, ready to be run: lowered, with its workload and its buffer plan.
#[derive(Clone, Debug)]
pub struct Program {
    /// The lowered table.
    pub table: Table,
    /// The shape of the step.
    pub workload: Workload,
    /// Activation buffers per rank.
    pub buffers: BufferPlan,
}

impl Program {
    /// A program of a lowered table.
    pub fn new(table: Table, workload: Workload) -> Self {
        let buffers = plan_buffers(&table, &workload);
        Program { table, workload, buffers }
    }

    /// The program of a step under the configured schedule: built, lowered, validated. Every rank computes the same
    /// one.
    ///
    /// A schedule that cuts all modules into a chain cuts it for this step, or as `chain` says: in a run, weights have
    /// to stay where they are.
    ///
    /// # Errors
    /// For an unknown schedule, one that does not fit, or a table that would not run or keep to its budget.
    pub fn build(
        plan: &StepPlan,
        costs: &CostModel,
        pipeline: &Pipeline,
        chain: Option<&Chain>,
    ) -> Result<Self, ExecuteError> {
        let options = options(pipeline)?;
        let schedule = registry::schedule(&pipeline.schedule)?;
        let workload = costs.workload(plan, pipeline.ranks, pipeline.chunks)?;
        let in_bytes = |kind: &ModuleKind| matches!(options.limits.budget[*kind], Some(Budget::Bytes(_)));
        let sized = ModuleKind::ALL.iter().any(in_bytes) || costs.rates.per_byte > 0.0;
        let workload = match chain {
            Some(chain) => workload.with_chain(chain.clone()),
            None => schedule.workload(&workload, options.llm),
        };
        let workload = if sized { with_sizes(&costs.shape, plan, workload)? } else { workload };
        // Ranks have one stream: they run overlapped passes one after the other, and send what the first made at once.
        let table = schedule.build(&workload, &options)?.without_overlaps();
        let table = lower(&table, &workload)?;
        validate(&table, &workload, &options.limits)?;
        Ok(Program::new(table, workload))
    }

    /// What units of a rank's ops will save for their backwards, where they are held between ops.
    ///
    /// # Errors
    /// Those of the operators' shape checks.
    pub fn predict_saved(
        &self,
        ctx: &Context,
        task: &StepTask<'_>,
        modules: &RankModules,
        rank: usize,
    ) -> Result<HashMap<Unit, u64>, ExecuteError> {
        let mut units = Vec::new();
        walk(&self.table.ranks[rank], &self.workload, |_, unit, change| {
            units.extend((change == Change::Acquire).then_some(unit));
        });
        let bytes = |unit| Ok((unit, task.saved_bytes(ctx, modules, &self.workload, unit)? as u64));
        units.into_iter().map(bytes).collect()
    }

    /// Whether LLM backwards are split into input and weight gradients.
    pub fn is_split(&self) -> bool {
        let mut runs = self.table.iter().flat_map(|(_, op)| op.runs());
        runs.any(|(unit, phase)| unit.module.kind() == ModuleKind::Llm && phase == Phase::BackwardWeight)
    }
}

/// What the configured schedule is built with.
///
/// # Errors
/// For an unknown order of the LLM's chunks, or a text that is not a budget.
pub fn options(pipeline: &Pipeline) -> Result<Options, ExecuteError> {
    let chosen = |group: usize| (group > 0).then_some(group);
    Ok(Options {
        llm: registry::llm_schedule(&pipeline.llm)?,
        llm_group: chosen(pipeline.llm_group),
        group: chosen(pipeline.group),
        limits: Limits { budget: module_budgets(&pipeline.budget)?, ..Limits::default() },
    })
}
