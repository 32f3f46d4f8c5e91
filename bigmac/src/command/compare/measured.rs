//! Schedules side by side on measured costs, and run for real.

use super::{CompareArgs, REFERENCE};
use crate::command::outcome::draw;
use crate::command::profile::{WARMUP, bar, measure, open};
use crate::command::table::{heads, line, percent, seconds};
use crate::command::{paragraph, print};
use anyhow::Context;
use bigmac::config::{self, Config};
use bigmac::cost::{CostModel, Spread};
use bigmac::data::StepPlan;
use bigmac::execute::Measured;
use bigmac::measure::{Contender, Contest, MeasureError, Rounds, Turn, contender, take_turns};
use bigmac::profile::Profile;
use bigmac::train::Session;
use bigmac_schedule::render::{Format, TimeUnit, Timeline, Trace};
use bigmac_schedule::{LlmSchedule, ModuleKind, PerModule, Schedule, registry};
use indicatif::BinaryBytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Steps and rounds of a profile that is taken on the way.
const PROFILE_STEPS: u64 = 2;
const PROFILE_ROUNDS: usize = 10;

/// A line of the comparison.
struct Row {
    schedule: &'static str,
    llm: &'static str,
    /// What it does on the clock, or why it does not exist for the step.
    simulated: Result<Contender, MeasureError>,
    /// What it did.
    measured: Option<Run>,
}

/// All turns of a schedule.
struct Run {
    turns: Vec<Turn>,
    peaks: PerModule<Peak>,
}

/// The most bytes of a module on any rank.
#[derive(Clone, Copy, Default, Serialize)]
struct Peak {
    measured: u64,
    predicted: u64,
}

/// Widths of the columns of what was measured.
const MEASURED: [isize; 8] = [12, 28, 10, 10, 19, 24, 24, 24];

struct Comparison<'a> {
    config: &'a Config,
    plan: &'a StepPlan,
    profile: &'a Profile,
    step: u64,
    rows: Vec<Row>,
}

/// Compares on a step of a configuration.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let format = args.timeline.as_deref().map(Format::of).transpose()?;
    let config = config::read(args.config.as_deref(), &args.settings)?;
    let (mut schedules, llms) = (args.schedules()?, args.llms(&config.pipeline.llm)?);
    let reference = registry::schedule(REFERENCE)?;
    if schedules.iter().all(|schedule| schedule.name() != reference.name()) {
        schedules.push(reference);
    }
    let profile = args.profile.as_deref().map(|path| read(path, &config)).transpose()?;
    let session = open(&config, args.json)?;
    let profile = match profile {
        Some(profile) => profile,
        None => measure(&session, PROFILE_STEPS, PROFILE_ROUNDS, args.json)?,
    };
    let plan = session.planner.step(args.step);
    let mut rows = Vec::new();
    for schedule in &schedules {
        for llm in &llms {
            rows.push(row(&session, &plan, &profile, schedule, llm)?);
        }
    }
    if args.measure {
        run_all(args, &session, &plan, &mut rows)?;
    }
    let comparison = Comparison { config: &config, plan: &plan, profile: &profile, step: args.step, rows };
    if let (Some(path), Some(format)) = (&args.timeline, format) {
        draw(path, format, &comparison.timelines())?;
    }
    print(&if args.json { comparison.json() } else { comparison.report() })
}

/// Runs what can be run, in turns.
fn run_all(args: &CompareArgs, session: &Session, plan: &StepPlan, rows: &mut [Row]) -> anyhow::Result<()> {
    let bar = bar(args.json, "rounds");
    let rounds = Rounds { warmup: WARMUP, kept: args.rounds };
    let able = || rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.simulated.as_ref().ok()?)));
    let programs: Vec<_> = able().map(|(_, one)| &one.program).collect();
    let places: Vec<usize> = able().map(|(i, _)| i).collect();
    let contest = take_turns(session, plan, &programs, rounds, &|| bar.inc(1));
    bar.finish_and_clear();
    let Contest { turns, predicted } = contest?;
    for ((place, turns), predicted) in places.into_iter().zip(turns).zip(predicted) {
        rows[place].measured = Some(Run { peaks: peaks(&turns, &predicted), turns });
    }
    Ok(())
}

fn read(path: &Path, config: &Config) -> anyhow::Result<Profile> {
    let profile = Profile::read(path)?;
    profile.check(config).with_context(|| format!("profile {}", path.display()))?;
    Ok(profile)
}

/// A schedule on the clock. Backwards cost what they were measured to as a whole, or split, as the schedule has them.
fn row(
    session: &Session,
    plan: &StepPlan,
    profile: &Profile,
    schedule: &'static Schedule,
    llm: &'static LlmSchedule,
) -> anyhow::Result<Row> {
    let pipeline = &session.config.pipeline;
    let on = |split| -> anyhow::Result<Result<Contender, MeasureError>> {
        let costs = CostModel { rates: profile.rates(plan, split)?, ..session.costs.clone() };
        Ok(contender(plan, &costs, pipeline, schedule, llm))
    };
    let mut simulated = on(false)?;
    if simulated.as_ref().is_ok_and(|one| one.program.is_split()) {
        simulated = on(true)?;
    }
    Ok(Row { schedule: schedule.name(), llm: llm.name(), simulated, measured: None })
}

fn peaks(turns: &[Turn], predicted: &[PerModule<u64>]) -> PerModule<Peak> {
    let mut peaks = PerModule::<Peak>::default();
    for kind in ModuleKind::ALL {
        let measured = turns.iter().flat_map(|turn| turn.ranks.iter().map(|rank| rank.saved[kind] as u64));
        let predicted = predicted.iter().map(|rank| rank[kind]);
        peaks[kind] = Peak { measured: measured.max().unwrap_or(0), predicted: predicted.max().unwrap_or(0) };
    }
    peaks
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
        let turns = self.measured.as_ref().map_or(&[][..], |run| &run.turns);
        let ranks = turns.first().map_or(0, |turn| turn.ranks.len());
        let busy = |turn: &Turn, rank: usize| {
            let measured = turn.ranks.get(rank)?;
            let end = measured.spans.last().map_or(0.0, |span| span.1);
            Some(end - measured.waits.iter().sum::<f64>())
        };
        (0..ranks).map(|rank| Spread::of(turns.iter().filter_map(|turn| busy(turn, rank)))).collect()
    }

    /// How far the measured median is from what was simulated, as a share of that.
    fn error(&self) -> Option<f64> {
        let simulated = self.simulated.as_ref().ok()?.simulation.time();
        Some(self.seconds()?.median / simulated - 1.0)
    }
}

impl Comparison<'_> {
    fn reference(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.schedule == REFERENCE)
    }

    fn simulated_ratio(&self, one: &Contender) -> Option<f64> {
        let reference = self.reference()?.simulated.as_ref().ok()?;
        Some(one.simulation.time() / reference.simulation.time())
    }

    fn title(&self, row: &Row) -> String {
        let several = self.rows.iter().any(|other| other.llm != row.llm);
        if several { format!("{} ({})", row.schedule, row.llm) } else { row.schedule.to_owned() }
    }

    fn report(&self) -> String {
        let pipeline = &self.config.pipeline;
        let (loads, taken) = (&self.plan.microbatches, &self.profile.taken);
        let mut text = format!(
            "Step {} of {}: {} microbatches, {} images to read, {} to draw; {} ranks of {} threads\n\
             Costs measured on {} ({})\n\
             Seconds are those of the pipeline. After it follow the reduction of gradients ({}) and the optimizer ({}).\n\n",
            self.step,
            self.config.run.name,
            loads.len(),
            loads.iter().map(|load| load.images.len()).sum::<usize>(),
            loads.iter().map(|load| load.draws.len()).sum::<usize>(),
            pipeline.ranks,
            pipeline.threads,
            taken.date,
            taken.processor,
            seconds(self.profile.around.reduce.median),
            seconds(self.profile.around.optimizer.median),
        );
        let wide = self.rows.iter().map(|row| self.title(row).chars().count()).max().unwrap_or(0).max(8);
        let ran = self.rows.iter().any(|row| row.measured.is_some());
        let simulated = heads([-(wide as isize), 11, 10], "schedule|simulated|x nested");
        let names = "measured|(quartiles)|error|x nested|(quartiles)|encoder|llm|generator";
        let measured = if ran { heads(MEASURED, names) } else { "\n".to_owned() };
        text += &(simulated.trim_end_matches('\n').to_owned() + &measured);
        for row in &self.rows {
            text += &format!("{:<wide$}{}\n", self.title(row), self.columns(row));
        }
        if ran {
            text.push_str(
                "\nerror is measured / simulated - 1; activations are the peak of the fullest rank, as measured and \
                 predicted\n(one figure where both are the same).\n",
            );
        }
        text
    }

    fn columns(&self, row: &Row) -> String {
        let one = match &row.simulated {
            Ok(one) => one,
            Err(reason) => return format!("  none: {reason}"),
        };
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        let text = format!("{:>11}{:>10}", seconds(one.simulation.time()), ratio(self.simulated_ratio(one)));
        let Some((run, measured)) = row.measured.as_ref().zip(row.seconds()) else { return text };
        let over = self.reference().and_then(|reference| row.ratio(reference));
        let quartiles = over.map(|over| format!("({:.3} to {:.3})", over.lower, over.upper));
        let [encoder, llm, generator] = ModuleKind::ALL.map(|kind| match run.peaks[kind] {
            Peak { measured, predicted } if measured == predicted => BinaryBytes(measured).to_string(),
            Peak { measured, predicted } => {
                format!("{} / {}", BinaryBytes(measured), BinaryBytes(predicted))
            }
        });
        let cells = [
            seconds(measured.median),
            format!("({} to {})", seconds(measured.lower), seconds(measured.upper)),
            percent(row.error().unwrap_or(0.0)),
            ratio(over.map(|over| over.median)),
            quartiles.unwrap_or_default(),
            encoder,
            llm,
            generator,
        ];
        text + line(MEASURED, cells).trim_end_matches('\n')
    }

    fn json(&self) -> String {
        let pipeline = &self.config.pipeline;
        let value = json!({
            "configuration": self.config.run.name,
            "step": self.step,
            "microbatches": self.plan.microbatches.len(),
            "ranks": pipeline.ranks,
            "threads": pipeline.threads,
            "reference": REFERENCE,
            "schedules": self.rows.iter().map(|row| self.row_json(row)).collect::<Vec<_>>(),
        });
        format!("{value:#}\n")
    }

    fn row_json(&self, row: &Row) -> Value {
        let one = match &row.simulated {
            Ok(one) => one,
            Err(reason) => {
                let reason = paragraph(&anyhow::anyhow!("{reason}"));
                return json!({ "schedule": row.schedule, "llm": row.llm, "error": reason });
            }
        };
        let peaks = row.measured.as_ref().map(|run| run.peaks);
        json!({
            "schedule": row.schedule,
            "llm": row.llm,
            "simulated": {
                "seconds": one.simulation.time(),
                "ratio": self.simulated_ratio(one),
                "bubble_rate": one.simulation.bubble_rate(),
                "utilization": one.simulation.utilization(),
                "busy": one.simulation.busy,
            },
            "measured": row.seconds().map(|seconds| json!({
                "seconds": seconds,
                "ratio": self.reference().and_then(|reference| row.ratio(reference)),
                "error": row.error(),
                "busy": row.busy(),
                "peak_bytes": peaks,
            })),
        })
    }

    /// Every schedule as simulated, and as measured in the round of its median.
    fn timelines(&self) -> Vec<Timeline> {
        let mut timelines = Vec::new();
        for row in &self.rows {
            let Ok(one) = &row.simulated else { continue };
            let (title, program) = (self.title(row), &one.program);
            let (table, workload) = (&program.table, &program.workload);
            let simulated =
                Timeline::simulated(&format!("{title}, simulated"), table, workload, &one.simulation);
            timelines.push(simulated.scaled(1.0, TimeUnit::Seconds));
            let Some(run) = &row.measured else { continue };
            let mut turns: Vec<&Turn> = run.turns.iter().collect();
            turns.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if let Some(turn) = turns.get(turns.len() / 2) {
                let traces: Vec<Trace> = turn.ranks.iter().map(Measured::trace).collect();
                timelines.push(Timeline::measured(&format!("{title}, measured"), table, &traces));
            }
        }
        timelines
    }
}
