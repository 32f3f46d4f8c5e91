//! Steps in turns.

use crate::data::{StepPictures, StepPlan};
use crate::execute::{Measured, Program, Ran, StepTask, run};
use crate::model::{Placement, RankModules};
use crate::train::{Session, TrainError};
use bigmac_comm::Communicator;
use bigmac_runtime::Context;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::PerModule;
use bigmac_schedule::memory::peak_bytes;

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

/// Runs a step under every program in turns, in another random order each round, so that nothing periodic meets the
/// same program every time; on as many threads as the configuration says. Weights are random and stay as they are.
/// Programs whose modules live on the same ranks share theirs, so that all find them in the caches. `progress` is told
/// each round as it ends.
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
    let pictures = decoded(session, plan)?;
    let ranks = session.on_ranks(session.config.pipeline.ranks, |ctx, comm| {
        run_rank(session, plan, &pictures, programs, rounds, ctx, comm, progress)
    })?;
    let mut contest =
        Contest { turns: vec![Vec::new(); programs.len()], predicted: vec![Vec::new(); programs.len()] };
    for measured in ranks {
        for (which, (rounds, peak)) in measured.into_iter().enumerate() {
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

/// The pictures of a step, decoded before it is measured, as they are in a run.
///
/// # Errors
/// For the first picture that cannot be decoded.
pub(super) fn decoded(session: &Session, plan: &StepPlan) -> Result<StepPictures, TrainError> {
    let pictures = session.prefetcher.step(plan);
    pictures.ready()?;
    Ok(pictures)
}

const TURNS: Purpose = Purpose::new("measure.turns");

/// What a rank measured of a program in every round, and its predicted peaks.
type RankTurns = (Vec<Measured>, PerModule<u64>);

/// One rank's side of the turns, by program.
fn run_rank(
    session: &Session,
    plan: &StepPlan,
    pictures: &StepPictures,
    programs: &[&Program],
    rounds: Rounds,
    ctx: &Context,
    comm: &dyn Communicator,
    progress: &(dyn Fn() + Sync),
) -> Result<Vec<RankTurns>, TrainError> {
    let (shape, seed) = (&session.shape, session.config.run.seed);
    let mut layouts: Vec<RankModules> = Vec::new();
    let mut layout_of = Vec::with_capacity(programs.len());
    for program in programs {
        let placement = Placement::of(shape, &program.workload)?;
        let known = layouts.iter().position(|modules| *modules.placement() == placement);
        if known.is_none() {
            layouts.push(RankModules::random(ctx, shape, &placement, comm.rank(), seed)?);
        }
        layout_of.push(known.unwrap_or(layouts.len() - 1));
    }
    let task = StepTask::new(&session.config, shape, plan, 0).with_pictures(pictures);
    let mut measured = vec![Vec::with_capacity(rounds.kept); programs.len()];
    for round in 0..rounds.warmup + rounds.kept {
        let mut order: Vec<usize> = (0..programs.len()).collect();
        // The same on every rank.
        Philox::new(seed, TURNS, round as u32, 0).shuffle(&mut order);
        for which in order {
            comm.barrier()?;
            let Ran { losses, record } =
                run(ctx, comm, programs[which], &task, &mut layouts[layout_of[which]])?;
            losses.read(ctx)?;
            let one = record.read()?;
            if round >= rounds.warmup {
                measured[which].push(one);
            }
        }
        if comm.rank() == 0 {
            progress();
        }
    }
    let turns = measured.into_iter().zip(programs).zip(layout_of);
    turns
        .map(|((measured, program), layout)| {
            let saved = program.predict_saved(ctx, &task, &layouts[layout], comm.rank())?;
            let of = |unit| saved.get(&unit).copied().unwrap_or(0);
            Ok((measured, peak_bytes(&program.table, &program.workload, of)[comm.rank()]))
        })
        .collect()
}
