//! Steps in turns.

use crate::data::{StepPictures, StepPlan};
use crate::execute::{Baton, ExecuteError, Measured, Program, Ran, StepTask, run, run_one_at_a_time};
use crate::model::{Placement, RankModules};
use crate::train::{Session, TrainError};
use bigmac_comm::Communicator;
use bigmac_runtime::Context;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::memory::peak_bytes;
use bigmac_schedule::{PerModule, simulate_durations};

/// How often every program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Rounds that are dropped, as caches and allocators are still cold.
    pub warmup: usize,
    /// Rounds that are kept.
    pub kept: usize,
}

/// How the ranks of a program run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All at once, as in training.
    Together,
    /// One op of one rank at a time, so that no op is disturbed by others and any number of ranks fits on a machine.
    OneAtATime,
}

/// What takes turns: a program in one way.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What is run.
    pub program: &'a Program,
    /// How.
    pub way: Way,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Turn {
    /// From the barrier before the step until the last rank's last op ended; where ranks ran one at a time, what the
    /// clock says of ranks at once whose ops take just as long, each its own, with the link of the program's workload.
    /// Reduction of gradients and optimizer are not in it.
    pub seconds: f64,
    /// What every rank measured.
    pub ranks: Vec<Measured>,
}

/// What every entry did.
#[derive(Clone, Debug)]
pub struct Contest {
    /// `turns[e][r]` is entry `e` in round `r` of those kept.
    pub turns: Vec<Vec<Turn>>,
    /// `predicted[e][rank]`: the most bytes that live activations would hold, by the table's own analysis.
    pub predicted: Vec<Vec<PerModule<u64>>>,
}

/// Runs a step under every entry in turns, in another random order each round, so that nothing periodic meets the same
/// entry every time; on as many threads as the configuration says. Weights are random and stay as they are. Programs
/// whose modules live on the same ranks share theirs, so that all find them in the caches. `progress` is told
/// each round as it ends.
///
/// # Errors
/// Those of a step, of the rank where it began.
pub fn take_turns(
    session: &Session,
    plan: &StepPlan,
    entries: &[Entry<'_>],
    rounds: Rounds,
    progress: &(dyn Fn() + Sync),
) -> Result<Contest, TrainError> {
    let pictures = decoded(session, plan)?;
    let contest =
        Competition { session, plan, pictures: &pictures, entries, rounds, baton: Baton::default() };
    let ranks =
        session.on_ranks(session.config.pipeline.ranks, |ctx, comm| contest.run_rank(ctx, comm, progress))?;
    let mut turns: Vec<Vec<Turn>> = Vec::new();
    let mut predicted = vec![Vec::new(); entries.len()];
    for measured in ranks {
        turns.resize(entries.len(), Vec::new());
        for (which, (rounds, peak)) in measured.into_iter().enumerate() {
            predicted[which].push(peak);
            let turns = &mut turns[which];
            turns.resize(rounds.len(), Turn { seconds: 0.0, ranks: Vec::new() });
            turns.iter_mut().zip(rounds).for_each(|(turn, measured)| turn.ranks.push(measured));
        }
    }
    for (turns, entry) in turns.iter_mut().zip(entries) {
        turns.iter_mut().try_for_each(|turn| turn.count(entry))?;
    }
    Ok(Contest { turns, predicted })
}

impl Turn {
    /// What each rank spent on each of its ops.
    pub fn durations(&self, program: &Program) -> Vec<Vec<f64>> {
        let ranks = self.ranks.iter().zip(&program.table.ranks);
        ranks.map(|(measured, ops)| measured.durations(ops)).collect()
    }

    fn count(&mut self, entry: &Entry<'_>) -> Result<(), ExecuteError> {
        self.seconds = match entry.way {
            Way::Together => {
                let ends = self.ranks.iter().filter_map(|measured| measured.spans.last());
                ends.map(|span| span.1).fold(0.0, f64::max)
            }
            Way::OneAtATime => {
                let Program { table, workload, .. } = entry.program;
                simulate_durations(table, workload, &self.durations(entry.program))?.time()
            }
        };
        Ok(())
    }
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

/// What a rank measured of an entry in every round, and its predicted peaks.
type RankTurns = (Vec<Measured>, PerModule<u64>);

/// What all ranks share.
struct Competition<'a> {
    session: &'a Session,
    plan: &'a StepPlan,
    pictures: &'a StepPictures,
    entries: &'a [Entry<'a>],
    rounds: Rounds,
    baton: Baton,
}

impl Competition<'_> {
    /// One rank's side of the turns, by entry.
    fn run_rank(
        &self,
        ctx: &Context,
        comm: &dyn Communicator,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<RankTurns>, TrainError> {
        let Competition { session, plan, entries, rounds, .. } = self;
        let (shape, seed) = (&session.shape, session.config.run.seed);
        let mut layouts: Vec<RankModules> = Vec::new();
        let mut layout_of = Vec::with_capacity(entries.len());
        for entry in *entries {
            let placement = Placement::of(shape, &entry.program.workload)?;
            let known = layouts.iter().position(|modules| *modules.placement() == placement);
            if known.is_none() {
                layouts.push(RankModules::random(ctx, shape, &placement, comm.rank(), seed)?);
            }
            layout_of.push(known.unwrap_or(layouts.len() - 1));
        }
        let task = StepTask::new(&session.config, shape, plan, 0).with_pictures(self.pictures);
        let mut measured = vec![Vec::with_capacity(rounds.kept); entries.len()];
        for round in 0..rounds.warmup + rounds.kept {
            let mut order: Vec<usize> = (0..entries.len()).collect();
            // The same on every rank.
            Philox::new(seed, TURNS, round as u32, 0).shuffle(&mut order);
            for which in order {
                comm.barrier()?;
                let (Entry { program, way }, modules) = (entries[which], &mut layouts[layout_of[which]]);
                let Ran { losses, record } = match way {
                    Way::Together => run(ctx, comm, program, &task, modules)?,
                    Way::OneAtATime => run_one_at_a_time(ctx, comm, program, &task, modules, &self.baton)?,
                };
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
        let turns = measured.into_iter().zip(*entries).zip(layout_of);
        turns
            .map(|((measured, Entry { program, .. }), layout)| {
                let saved = program.predict_saved(ctx, &task, &layouts[layout], comm.rank())?;
                let of = |unit| saved.get(&unit).copied().unwrap_or(0);
                Ok((measured, peak_bytes(&program.table, &program.workload, of)[comm.rank()]))
            })
            .collect()
    }
}
