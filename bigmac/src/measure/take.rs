//! Taking a profile: real steps with all ranks busy.

use super::{Contender, Entry, MeasureError, Rounds, Way, around, contender, take_turns};
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
/// The schedule that changes modules least often.
const STEADY: &str = "phased";
/// Orders of the LLM's chunks that between them run whole and split backwards.
const ORDERS: [&str; 3] = ["1f1b", "zb-h1", "zb-v"];

/// Measures the first `steps` steps of the session's data: `nested` on the configured order of the LLM's chunks, and on
/// others so that whole and split backwards are both met, and `phased`, in which ops follow others of their own module;
/// all of it in turns. `progress` is told each round as it ends.
///
/// An op's time is what its rank spent on it, without waiting for values of other ranks, up to the rank's next op: what
/// the executor itself does is in it. Where the machine has a processor for every thread of every rank, ops are measured
/// with all ranks busy and, for the contention between ranks, one at a time as well; otherwise one at a time only.
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
    let one_at_a_time = !fits(session);
    let (mut together, mut alone) = (Samples::default(), Samples::default());
    let mut schedules = Vec::new();
    let mut surroundings = None;
    let costs = CostModel { rates: Rates::default(), ..session.costs.clone() };
    for step in 0..steps {
        let plan = session.planner.step(step).of_replica(0, pipeline.dp);
        let gops = costs.workload(&plan, pipeline.ranks, pipeline.chunks).map_err(ExecuteError::from)?;
        let contenders = contenders(&plan, &costs, pipeline)?;
        let entry = |way| contenders.iter().map(move |one| Entry { program: &one.program, way });
        let mut entries: Vec<_> = entry(Way::OneAtATime).collect();
        if !one_at_a_time {
            entries.extend(entry(Way::Together));
        }
        let contest = take_turns(session, &plan, &entries, rounds, progress)?;
        for (entry, turns) in entries.iter().zip(&contest.turns) {
            let samples = if entry.way == Way::Together { &mut together } else { &mut alone };
            for durations in turns.iter().map(|turn| turn.durations(entry.program)) {
                let ranks = entry.program.table.ranks.iter().zip(&durations);
                ranks.for_each(|(ops, durations)| samples.take(ops, durations, &gops));
            }
        }
        if step == 0 {
            schedules = contenders.iter().map(|one| format!("{} on {}", one.schedule, one.llm)).collect();
            surroundings =
                entries.first().map(|one| around(session, &plan, one.program, rounds)).transpose()?;
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
        one_at_a_time,
    };
    let mut unit = if one_at_a_time { alone.fit() } else { together.fit() };
    if !one_at_a_time {
        alone.add_contention(&mut unit);
    }
    Ok(Profile { taken, around, model: session.config.model.clone(), unit })
}

/// Whether all ranks of a session can compute at once without sharing processors.
pub fn fits(session: &Session) -> bool {
    let pipeline = &session.config.pipeline;
    match session.gpu {
        Some(_) => pipeline.ranks == 1,
        None => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            pipeline.ranks.saturating_mul(pipeline.threads) <= processors
        }
    }
}

/// Programs that between them run every kind of op, as far as the layout allows.
fn contenders(
    plan: &StepPlan,
    costs: &CostModel,
    pipeline: &Pipeline,
) -> Result<Vec<Contender>, MeasureError> {
    let [schedule, steady] = [BUSY, STEADY].map(|name| registry::schedule(name).map_err(ExecuteError::from));
    let (schedule, steady) = (schedule?, steady?);
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
    let order = registry::llm_schedule(&pipeline.llm).map_err(ExecuteError::from)?;
    // Where it does not fit a budget, that costs are a little higher after a change stays unknown.
    contenders.extend(contender(plan, costs, pipeline, steady, order).ok());
    match (contenders.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        _ => Ok(contenders),
    }
}
