//! Schedules side by side on measured costs, and run for real.

mod report;

use super::{CompareArgs, REFERENCE};
use crate::command::outcome::draw;
use crate::command::profile::{WARMUP, bar, measure, open};
use crate::command::{note, print};
use anyhow::Context;
use bigmac::config::{self, Config, Pipeline};
use bigmac::cost::{Clocked, CostModel, Effects, Spread};
use bigmac::data::StepPlan;
use bigmac::execute::{ExecuteError, Program};
use bigmac::measure::{
    Contender, Contest, Entry, MeasureError, Rounds, Turn, Way, contender, fits, take_turns,
};
use bigmac::profile::Profile;
use bigmac::train::Session;
use bigmac_schedule::render::Format;
use bigmac_schedule::{LlmSchedule, ModuleKind, PerModule, Schedule, registry, simulate_durations};
use serde::Serialize;
use std::path::Path;

/// Steps and rounds of a profile that is taken on the way.
const PROFILE_STEPS: u64 = 2;
const PROFILE_ROUNDS: usize = 10;

/// A line of the comparison.
struct Row {
    schedule: &'static str,
    llm: &'static str,
    /// What it does on the clock, or why it does not exist for the step.
    simulated: Result<Simulated, MeasureError>,
    /// What it did.
    measured: Option<Run>,
}

/// What a schedule does on the clock.
struct Simulated {
    contender: Contender,
    /// With all that was measured of ops' times.
    clocked: Clocked,
}

/// All turns of a schedule.
struct Run {
    turns: Vec<Turn>,
    /// By turn in which one op ran at a time: the seconds of ranks that share the machine, by the contention that was
    /// measured; empty where it was not.
    contended: Vec<f64>,
    /// The same schedule in the same rounds with all ranks at once, in seconds; empty where the machine has not the
    /// processors.
    parallel: Vec<f64>,
    /// By rank.
    peaks: Vec<PerModule<Peak>>,
}

/// The most bytes of a module's activations.
#[derive(Clone, Copy, Default, Serialize)]
struct Peak {
    measured: u64,
    predicted: u64,
}

struct Comparison<'a> {
    config: &'a Config,
    plan: &'a StepPlan,
    profile: &'a Profile,
    step: u64,
    way: Way,
    rows: Vec<Row>,
}

/// Compares on a step of a configuration.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let format = args.timeline.as_deref().map(Format::of).transpose()?;
    let ranks = args.ranks.map(|ranks| format!("pipeline.ranks={ranks}"));
    let settings: Vec<String> = args.settings.iter().cloned().chain(ranks).collect();
    let config = config::read(args.config.as_deref(), &settings)?;
    let (mut schedules, llms) = (args.schedules()?, args.llms(&config.pipeline.llm)?);
    let reference = registry::schedule(REFERENCE)?;
    if schedules.iter().all(|schedule| schedule.name() != reference.name()) {
        schedules.push(reference);
    }
    let profile = args.profile.as_deref().map(|path| read(path, &config)).transpose()?;
    let session = open(&config, args.json)?;
    if args.measure && !args.one_at_a_time && !fits(&session) {
        let Pipeline { ranks, threads, .. } = config.pipeline;
        let shared = if session.gpu.is_some() { "one GPU" } else { "the processors" };
        note(&format!(
            "note: {ranks} ranks of {threads} threads share {shared}, so they wait for more than each other; with \
             --one-at-a-time no rank disturbs another"
        ));
    }
    let profile = match profile {
        Some(profile) => profile,
        None => measure(&session, PROFILE_STEPS, PROFILE_ROUNDS, args.json)?,
    };
    let way = if args.one_at_a_time { Way::OneAtATime } else { Way::Together };
    let plan = session.planner.step(args.step).of_replica(0, session.config.pipeline.dp);
    let mut rows = Vec::new();
    for schedule in &schedules {
        for llm in &llms {
            rows.push(row(&session, &plan, &profile, way, schedule, llm)?);
        }
    }
    if args.measure {
        run_all(args, &session, &plan, &profile, &mut rows)?;
    }
    let comparison =
        Comparison { config: &config, plan: &plan, profile: &profile, step: args.step, way, rows };
    if let (Some(path), Some(format)) = (&args.timeline, format) {
        draw(path, format, &comparison.timelines())?;
    }
    print(&if args.json { comparison.json() } else { comparison.report() })
}

/// Runs what can be run, in turns.
fn run_all(
    args: &CompareArgs,
    session: &Session,
    plan: &StepPlan,
    profile: &Profile,
    rows: &mut [Row],
) -> anyhow::Result<()> {
    let bar = bar(args.json, "rounds");
    let rounds = Rounds { warmup: WARMUP, kept: args.rounds };
    // Beside ops that run one at a time their schedules with all ranks at once, where the machine can: the two agree.
    let ways: &[Way] = match args.one_at_a_time {
        true if fits(session) => &[Way::OneAtATime, Way::Together],
        true => &[Way::OneAtATime],
        false => &[Way::Together],
    };
    let able = |row: &Row| row.simulated.as_ref().ok().map(|one| one.contender.program.clone());
    let programs: Vec<(usize, Program)> =
        rows.iter().enumerate().filter_map(|(i, row)| Some((i, able(row)?))).collect();
    let entries: Vec<_> = ways
        .iter()
        .flat_map(|way| programs.iter().map(|(_, program)| Entry { program, way: *way }))
        .collect();
    let contest = take_turns(session, plan, &entries, rounds, &|| bar.inc(1));
    bar.finish_and_clear();
    let Contest { turns, predicted } = contest?;
    let mut turns = turns.into_iter();
    let effects = profile.effects();
    for ((place, program), predicted) in programs.iter().zip(&predicted) {
        let Some(turns) = turns.next() else { break };
        let contended = match ways[0] {
            Way::OneAtATime if profile.contention().is_some() => {
                turns.iter().map(|turn| contended(&effects, program, turn)).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        let peaks = peaks(&turns, predicted);
        rows[*place].measured = Some(Run { turns, contended, parallel: Vec::new(), peaks });
    }
    for ((place, _), turns) in programs.iter().zip(turns) {
        if let Some(run) = &mut rows[*place].measured {
            run.parallel = turns.iter().map(|turn| turn.seconds).collect();
        }
    }
    Ok(())
}

/// The time of a turn in which one op ran at a time, on ranks that share the machine.
fn contended(effects: &Effects, program: &Program, turn: &Turn) -> Result<f64, MeasureError> {
    let Program { table, workload, .. } = program;
    let durations = effects.together(table, workload, &turn.durations(program));
    let simulation = durations.and_then(|durations| simulate_durations(table, workload, &durations));
    Ok(simulation.map_err(ExecuteError::from)?.time())
}

fn read(path: &Path, config: &Config) -> anyhow::Result<Profile> {
    let profile = Profile::read(path)?;
    profile.check(config).with_context(|| format!("profile {}", path.display()))?;
    Ok(profile)
}

/// A schedule on the clock.
fn row(
    session: &Session,
    plan: &StepPlan,
    profile: &Profile,
    way: Way,
    schedule: &'static Schedule,
    llm: &'static LlmSchedule,
) -> anyhow::Result<Row> {
    let costs = CostModel { rates: profile.rates(plan)?, ..session.costs.clone() };
    let simulated = contender(plan, &costs, &session.config.pipeline, schedule, llm)
        .and_then(|contender| simulated(contender, &profile.effects(), way));
    Ok(Row { schedule: schedule.name(), llm: llm.name(), simulated, measured: None })
}

fn simulated(contender: Contender, effects: &Effects, way: Way) -> Result<Simulated, MeasureError> {
    let Program { table, workload, .. } = &contender.program;
    let alone = effects.alone(table, workload);
    let durations = match way {
        Way::OneAtATime => Ok(alone),
        Way::Together => effects.together(table, workload, &alone),
    };
    let clocked = durations.and_then(|durations| effects.clocked(table, workload, &durations));
    Ok(Simulated { clocked: clocked.map_err(ExecuteError::from)?, contender })
}

/// By rank.
fn peaks(turns: &[Turn], predicted: &[PerModule<u64>]) -> Vec<PerModule<Peak>> {
    let of = |(rank, predicted): (usize, &PerModule<u64>)| {
        PerModule::from_fn(|kind| {
            let measured = turns.iter().filter_map(|turn| turn.ranks.get(rank));
            let measured = measured.map(|measured| measured.saved[kind] as u64).max().unwrap_or(0);
            Peak { measured, predicted: predicted[kind] }
        })
    };
    predicted.iter().enumerate().map(of).collect()
}

impl Run {
    /// The most of each module on any rank.
    fn fullest(&self) -> PerModule<Peak> {
        PerModule::from_fn(|kind: ModuleKind| {
            let most = |of: fn(&Peak) -> u64| self.peaks.iter().map(|peaks| of(&peaks[kind])).max();
            Peak {
                measured: most(|peak| peak.measured).unwrap_or(0),
                predicted: most(|peak| peak.predicted).unwrap_or(0),
            }
        })
    }
}

impl Row {
    fn seconds(&self) -> Option<Spread> {
        Spread::of(self.measured.as_ref()?.turns.iter().map(|turn| turn.seconds))
    }

    /// Its seconds over those of another, round by round.
    fn ratio(&self, other: &Row) -> Option<Spread> {
        let (mine, other) = (self.measured.as_ref()?, other.measured.as_ref()?);
        Spread::of(mine.turns.iter().zip(&other.turns).map(|(mine, other)| mine.seconds / other.seconds))
    }

    /// Per rank, the seconds in which it did not wait.
    fn busy(&self) -> Vec<Option<Spread>> {
        let (Some(run), Ok(one)) = (&self.measured, &self.simulated) else { return Vec::new() };
        let program = &one.contender.program;
        let turns: Vec<_> = run.turns.iter().map(|turn| turn.durations(program)).collect();
        let busy = |rank: usize| turns.iter().map(move |ranks| ranks[rank].iter().sum::<f64>());
        (0..program.table.ranks.len()).map(|rank| Spread::of(busy(rank))).collect()
    }

    /// One at a time over all at once, round by round: with the contention that was measured, and without.
    fn agreement(&self) -> Option<(Option<Spread>, Spread)> {
        let run = self.measured.as_ref()?;
        let over = |times: &mut dyn Iterator<Item = f64>| {
            Spread::of(times.zip(&run.parallel).map(|(time, parallel)| time / parallel))
        };
        let corrected = over(&mut run.contended.iter().copied());
        Some((corrected, over(&mut run.turns.iter().map(|turn| turn.seconds))?))
    }

    /// How far the measured median is from what was simulated, as a share of that.
    fn error(&self) -> Option<f64> {
        let simulated = self.simulated.as_ref().ok()?.clocked.seconds;
        Some(self.seconds()?.median / simulated - 1.0)
    }
}
