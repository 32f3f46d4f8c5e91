//! Every way to lay a step out, and tables with their backwards rewritten as no schedule need write them.

use anyhow::Result;
use bigmac::config::Pipeline;
use bigmac::data::StepPlan;
use bigmac::execute::{ExecuteError, Program, options};
use bigmac::train::Session;
use bigmac_schedule::{ModuleKind, Op, Phase, Table, Workload, lower, registry, validate};

/// The program of a pipeline; `None` where its schedule or its order of chunks takes no such number of chunks.
///
/// # Errors
/// As [`Program::build`].
pub fn fitting(session: &Session, plan: &StepPlan, pipeline: &Pipeline) -> Result<Option<Program>> {
    match Program::build(plan, &session.costs, pipeline, None) {
        Err(ExecuteError::Schedule(error)) if error.is_about_the_layout() => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// The names of all schedules of a whole step.
pub fn schedules() -> impl Iterator<Item = &'static str> + Clone {
    registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()).map(|schedule| schedule.name())
}

/// `pipeline` under every schedule, order of the LLM's chunks, and one or two chunks per rank; some do not fit.
pub fn layouts(pipeline: &Pipeline) -> impl Iterator<Item = Pipeline> + '_ {
    let orders = registry::LLM_SCHEDULES.iter().map(|order| order.name());
    let orders = orders.flat_map(|order| [(order, 1), (order, 2)]);
    orders.flat_map(move |(llm, chunks)| {
        schedules().map(move |schedule| Pipeline {
            schedule: schedule.into(),
            llm: llm.into(),
            chunks,
            ..pipeline.clone()
        })
    })
}

/// The program of a pipeline, with its table rewritten before the communication is added.
///
/// # Errors
/// Where the table does not validate any more.
pub fn rewritten(
    session: &Session,
    plan: &StepPlan,
    pipeline: &Pipeline,
    rewrite: impl Fn(&Workload, Vec<Op>) -> Vec<Op>,
) -> Result<Program> {
    let workload = session.costs.workload(plan, pipeline.ranks, pipeline.chunks)?;
    let options = options(pipeline)?;
    let schedule = registry::schedule(&pipeline.schedule)?;
    let workload = schedule.workload(&workload, options.llm);
    let table = schedule.build(&workload, &options)?.without_overlaps();
    let table = Table { ranks: table.ranks.into_iter().map(|ops| rewrite(&workload, ops)).collect() };
    let table = lower(&table, &workload)?;
    validate(&table, &workload, &options.limits)?;
    Ok(Program::new(table, workload))
}

/// Every unit computed again right before its backward.
pub fn recomputed(_: &Workload, ops: Vec<Op>) -> Vec<Op> {
    let again = |op: Op| match &op {
        Op::Compute { module, phase: Phase::Backward | Phase::BackwardInput, work } => {
            let again = Op::Compute { module: *module, phase: Phase::Recompute, work: work.clone() };
            vec![again, op]
        }
        _ => vec![op],
    };
    ops.into_iter().flat_map(again).collect()
}

/// Every backward of these modules split, weight gradients as late as `lag` other ops allow.
pub fn split(workload: &Workload, ops: Vec<Op>, kinds: &[ModuleKind], lag: usize) -> Vec<Op> {
    let mut out = Vec::new();
    let mut late = std::collections::VecDeque::new();
    for op in ops {
        match op {
            Op::Compute { module, phase: Phase::Backward, work } if kinds.contains(&module.kind()) => {
                out.push(Op::Compute { module, phase: Phase::BackwardInput, work: work.clone() });
                if workload.has_weight_gradient(module.kind()) {
                    late.push_back(Op::Compute { module, phase: Phase::BackwardWeight, work });
                }
            }
            Op::Step => {
                out.extend(late.drain(..));
                out.push(Op::Step);
            }
            other => out.push(other),
        }
        if late.len() > lag {
            out.extend(late.pop_front());
        }
    }
    out
}
