//! Taking a profile: real steps with all ranks busy.

use super::{Contender, MeasureError, Rounds, around, contender, take_turns};
use crate::config::Pipeline;
use crate::cost::{CostModel, Rates, Samples};
use crate::data::StepPlan;
use crate::execute::ExecuteError;
use crate::profile::{Profile, Taken, processor};
use crate::train::Session;
use bigmac_schedule::registry;
use std::time::SystemTime;

/// The schedule that keeps all ranks busy.
const BUSY: &str = "nested";
/// Orders of the LLM's chunks that between them run whole and split backwards.
const ORDERS: [&str; 2] = ["1f1b", "zb-h1"];

/// Measures the first `steps` steps of the session's data: `nested` on the configured order of the LLM's chunks, and on
/// others so that whole and split backwards are both met, in turns. `progress` is told each round as it ends.
///
/// An op's time is what its rank spent on it, without waiting for values of other ranks, up to the rank's next op: what
/// the executor itself does is in it.
///
/// # Errors
/// [`MeasureError::Nothing`] for no steps or rounds; those of a step.
pub fn take(
    session: &Session,
    steps: u64,
    rounds: Rounds,
    progress: &(dyn Fn() + Sync),
) -> Result<Profile, MeasureError> {
    for (what, count) in [("step", steps), ("round", rounds.kept as u64)] {
        if count == 0 {
            return Err(MeasureError::Nothing { what });
        }
    }
    let pipeline = &session.config.pipeline;
    let mut samples = Samples::default();
    let mut schedules = Vec::new();
    let mut surroundings = None;
    let costs = CostModel { rates: Rates::default(), ..session.costs.clone() };
    for step in 0..steps {
        let plan = session.planner.step(step);
        let gops = costs.workload(&plan, pipeline.ranks, pipeline.chunks).map_err(ExecuteError::from)?;
        let contenders = contenders(&plan, &costs, pipeline)?;
        let programs: Vec<_> = contenders.iter().map(|one| &one.program).collect();
        let contest = take_turns(session, &plan, &programs, rounds, progress)?;
        for (contender, turns) in contenders.iter().zip(&contest.turns) {
            for (rank, measured) in turns.iter().flat_map(|turn| turn.ranks.iter().enumerate()) {
                let ops = &contender.program.table.ranks[rank];
                samples.take(ops, &measured.spans, &measured.waits, &gops);
            }
        }
        if step == 0 {
            schedules = contenders.iter().map(|one| format!("{} on {}", one.schedule, one.llm)).collect();
            surroundings =
                programs.first().map(|program| around(session, &plan, program, rounds)).transpose()?;
        }
    }
    let around = surroundings.ok_or(MeasureError::Nothing { what: "schedule" })?;
    let taken = Taken {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        processor: processor().unwrap_or_else(|| "unknown".to_owned()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        ranks: pipeline.ranks,
        threads: pipeline.threads,
        chunks: pipeline.chunks,
        schedules,
        steps,
        rounds: rounds.kept,
    };
    Ok(Profile { taken, around, model: session.config.model.clone(), unit: samples.fit() })
}

/// Programs that between them run every kind of op, as far as the layout allows.
fn contenders(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
) -> Result<Vec<Contender>, MeasureError> {
    let schedule = registry::schedule(BUSY).map_err(ExecuteError::from)?;
    let mut refused = None;
    let mut contenders: Vec<Contender> = Vec::new();
    for name in std::iter::once(&*pipeline.llm).chain(ORDERS) {
        let order = registry::llm_schedule(name).map_err(ExecuteError::from)?;
        match contender(plan, costs, pipeline, schedule, order) {
            // Of each kind one is enough.
            Ok(one) if contenders.iter().any(|known| known.program.is_split() == one.program.is_split()) => {}
            Ok(one) => contenders.push(one),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    match (contenders.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        _ => Ok(contenders),
    }
}
