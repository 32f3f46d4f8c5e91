//! Steps in turns.

use crate::data::StepPlan;
use crate::execute::{Measured, Program, Ran, StepTask, predict_saved, run};
use crate::model::{Placement, RankModules};
use crate::train::{Session, TrainError};
use bigmac_comm::{Communicator, run_ranks};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::PerModule;
use bigmac_schedule::check::memory::peak_bytes;
use std::time::Duration;

/// How often every program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Rounds that are dropped, as caches and allocators are still cold.
    pub warmup: usize,
    /// Rounds that are kept.
    pub kept: usize,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Turn {
    /// From the barrier before the step until the last rank's last op ended. Reduction of gradients and optimizer are
    /// not in it.
    pub seconds: f64,
    /// What every rank measured.
    pub ranks: Vec<Measured>,
}

/// What every program did.
#[derive(Clone, Debug)]
pub struct Contest {
    /// `turns[p][r]` is program `p` in round `r` of those kept.
    pub turns: Vec<Vec<Turn>>,
    /// `predicted[p][rank]`: the most bytes that live activations would hold, by the table's own analysis.
    pub predicted: Vec<Vec<PerModule<u64>>>,
}

/// Runs a step under every program in turns, in another random order each round, so that nothing periodic meets the same
/// program every time; on as many threads as the configuration says. Weights are random and stay as they are. Programs whose modules live on the same
/// ranks share theirs, so that all find them in the caches alike. `progress` is told each round as it ends.
///
/// # Errors
/// Those of a step, of the rank where it began.
pub fn take_turns(
    session: &Session,
    plan: &StepPlan,
    programs: &[&Program],
    rounds: Rounds,
    progress: &(dyn Fn() + Sync),
) -> Result<Contest, TrainError> {
    let pipeline = &session.config.pipeline;
    let timeout = Duration::from_secs_f64(pipeline.timeout);
    let ranks = run_ranks(pipeline.ranks, timeout, |comm| {
        run_rank(&Place { session, plan, rounds, comm: &comm }, programs, progress)
    })?;
    let mut contest =
        Contest { turns: vec![Vec::new(); programs.len()], predicted: vec![Vec::new(); programs.len()] };
    for (measured, predicted) in ranks {
        for (which, (rounds, peak)) in measured.into_iter().zip(predicted).enumerate() {
            contest.predicted[which].push(peak);
            let turns = &mut contest.turns[which];
            turns.resize(rounds.len(), Turn { seconds: 0.0, ranks: Vec::new() });
            for (turn, measured) in turns.iter_mut().zip(rounds) {
                let end = measured.spans.last().map_or(0.0, |span| span.1);
                turn.seconds = turn.seconds.max(end);
                turn.ranks.push(measured);
            }
        }
    }
    Ok(contest)
}

const TURNS: Purpose = Purpose::new("measure.turns");

struct Place<'a> {
    session: &'a Session,
    plan: &'a StepPlan,
    rounds: Rounds,
    comm: &'a dyn Communicator,
}

/// By program: what the rank measured in every round, and the predicted peaks.
type RankTurns = (Vec<Vec<Measured>>, Vec<PerModule<u64>>);

fn run_rank(
    place: &Place<'_>,
    programs: &[&Program],
    progress: &(dyn Fn() + Sync),
) -> Result<RankTurns, TrainError> {
    let Place { session, plan, rounds, comm } = *place;
    let ctx = session.context(comm.rank(), session.config.pipeline.threads)?;
    let mut layouts: Vec<RankModules> = Vec::new();
    let mut layout_of = Vec::with_capacity(programs.len());
    for program in programs {
        let placement = Placement::of(&session.shape, &program.workload)?;
        let known = layouts.iter().position(|modules| *modules.placement() == placement);
        if known.is_none() {
            let (shape, seed) = (&session.shape, session.config.run.seed);
            layouts.push(RankModules::random(&ctx, shape, &placement, comm.rank(), seed)?);
        }
        layout_of.push(known.unwrap_or(layouts.len() - 1));
    }
    let task = StepTask::new(&session.config, &session.shape, plan, 0);
    let mut measured = vec![Vec::with_capacity(rounds.kept); programs.len()];
    for round in 0..rounds.warmup + rounds.kept {
        let mut order: Vec<usize> = (0..programs.len()).collect();
        // The same on every rank.
        Philox::new(session.config.run.seed, TURNS, round as u32, 0).shuffle(&mut order);
        for which in order {
            let modules = &mut layouts[layout_of[which]];
            comm.barrier()?;
            let Ran { losses, record } = run(&ctx, comm, programs[which], &task, modules)?;
            losses.read(&ctx)?;
            let one = record.read()?;
            if round >= rounds.warmup {
                measured[which].push(one);
            }
        }
        if comm.rank() == 0 {
            progress();
        }
    }
    let mut peaks = Vec::with_capacity(programs.len());
    for (program, layout) in programs.iter().zip(layout_of) {
        let saved = predict_saved(&ctx, &task, &layouts[layout], program, comm.rank())?;
        let of = |unit| saved.get(&unit).copied().unwrap_or(0);
        peaks.push(peak_bytes(&program.table, &program.workload, of)[comm.rank()]);
    }
    Ok((measured, peaks))
}
