//! `bigmac simulate`: a schedule on the clock, without running anything.

use super::jitter::{Jitter, Makespans};
use super::outcome::{Outcome, draw, write};
use super::print;
use super::shape::{RANKS, Shape, check_together, listed, llm_help};
use super::table::{heads, line, percent, short};
use anyhow::bail;
use bigmac_schedule::ModuleKind;
use bigmac_schedule::files::Form;
use bigmac_schedule::lower;
use bigmac_schedule::registry;
use bigmac_schedule::render::{Format, Timeline};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "Example: what nesting the encoder saves over running it inside the first stage, as a picture
  bigmac simulate --schedule monolithic,nested --ranks 4 --microbatches 16 \\
      --cost F=1,B=1,W=1,Ef=2,Eb=4 --timeline steps.html

Output: time of the step; ideal, the LLM schedule's time plus all slots at their largest shares; bound, which no
schedule can beat; the ranks' busy share; bubble as Zero Bubble counts it; activation peaks. JSON is one object per
schedule (a list for several): time, ideal, bound, bubble_rate, ranks: [{busy, peak: {encoder, llm, generator}}], and
with --jitter the makespans of all draws, jitter: {median, q1, q3}.";

/// Simulate a pipeline schedule: its time, bubble, and the activations it keeps alive.
///
/// Costs are in any unit of time. LLM costs are those of one stage (all chunks of a rank) and one microbatch; encoder
/// and generator costs those of one microbatch's items together.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct SimulateArgs {
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help = schedule_help())]
    schedule: Vec<String>,

    /// Simulate the ops of this file instead of a schedule by name: in the form that --table writes, or as
    /// torch.distributed.pipelining's CSV where it ends in .csv. Ranks, chunks and microbatches have to be given as
    /// the file has them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schedule", "llm", "llm_group"])]
    from: Option<PathBuf>,

    #[arg(long, value_name = "NAME", default_value = "1f1b", help = llm_help())]
    llm: String,

    /// Ranks, which are the LLM's pipeline stages
    #[arg(long, value_name = "P", default_value_t = RANKS)]
    ranks: usize,

    #[command(flatten)]
    shape: Shape,

    /// What a schedule loses where ops don't take the same time every time: each op's time is multiplied by
    /// exp(SIGMA z - SIGMA^2/2), z standard normal, and the step is run again and again [default: SEED 0, 100 DRAWS]
    #[arg(long, value_name = "SIGMA[,SEED[,DRAWS]]", value_parser = Jitter::parse)]
    jitter: Option<Jitter>,

    /// Draw the timelines into a file that ends in .html, .svg or .json (Perfetto)
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Write the schedule's ops, a line per rank; the LLM's alone into a .csv file as torch.distributed.pipelining
    /// reads it
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Add sends and receives to the ops of --table
    #[arg(long, requires = "table")]
    lowered: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let format = args.timeline.as_deref().map(Format::of).transpose()?;
    let options = args.shape.options(registry::llm_schedule(&args.llm)?);
    let workload = args.shape.workload(args.ranks)?;
    let alone = ["llm".to_owned()];
    let names = if args.schedule.is_empty() { &alone[..] } else { &args.schedule };
    check_together(&workload, names.len())?;
    if let (Some(path), true) = (&args.table, names.len() > 1) {
        bail!(
            "--table {} holds one schedule, but {} were given: ask for one of them",
            path.display(),
            names.len()
        );
    }
    let outcomes: Vec<Outcome> = match &args.from {
        Some(path) => vec![Outcome::read(path, workload, &options)?],
        None => names
            .iter()
            .map(|name| Outcome::of(registry::schedule(name)?, &workload, &options))
            .collect::<anyhow::Result<_>>()?,
    };
    if let (Some(path), Some(format)) = (&args.timeline, format) {
        let timelines: Vec<Timeline> = outcomes.iter().map(|one| one.timeline(&one.name)).collect();
        draw(path, format, &timelines)?;
    }
    if let (Some(path), [outcome]) = (&args.table, &outcomes[..]) {
        write(path, &ops(path, outcome, args.lowered)?)?;
    }
    let spreads = args.jitter.map(|jitter| outcomes.iter().map(|one| jitter.of(one)).collect());
    let spreads: Vec<Makespans> = spreads.transpose()?.unwrap_or_default();
    print(&if args.json {
        json(&outcomes, &spreads)
    } else {
        let drawn = args.jitter.map(|jitter| drawn(jitter, &outcomes, &spreads));
        report(&outcomes) + &drawn.unwrap_or_default()
    })
}

/// The ops as text, or as the CSV of torch.distributed.pipelining for a file that is called so.
fn ops(path: &Path, outcome: &Outcome, lowered: bool) -> anyhow::Result<String> {
    let form = Form::of(path);
    if lowered {
        return Ok(form.write(&lower(&outcome.table, &outcome.workload)?)?);
    }
    Ok(form.write(&outcome.table)?)
}

fn json(outcomes: &[Outcome], spreads: &[Makespans]) -> String {
    let mut objects: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
    for (object, spread) in objects.iter_mut().zip(spreads) {
        object["jitter"] = json!(spread);
    }
    let value = if objects.len() == 1 { objects.remove(0) } else { Value::Array(objects) };
    format!("{value:#}\n")
}

/// The makespans of all draws, a line per schedule.
fn drawn(jitter: Jitter, outcomes: &[Outcome], spreads: &[Makespans]) -> String {
    let Jitter { sigma, seed, draws } = jitter;
    let mut text =
        format!("\ntimes of ops spread by exp({sigma} z - {sigma}^2/2), {draws} draws of seed {seed}\n\n");
    text += &heads([-14, 10, 10, 10, 10], "schedule|median|q1|q3|/ time");
    for (one, Makespans { median, q1, q3 }) in outcomes.iter().zip(spreads) {
        let time = one.simulation.time();
        let over = if time > 0.0 { format!("{:.3}", median / time) } else { "-".to_owned() };
        text +=
            &line([-14, 10, 10, 10, 10], [one.name.clone(), short(*median), short(*q1), short(*q3), over]);
    }
    text
}

const WIDTHS: [isize; 9] = [-14, 10, 10, 10, 9, 9, 10, 8, 11];
const RANK_WIDTHS: [isize; 5] = [-14, 10, 48, 8, 11];

/// What a person reads: a line per schedule, and for a single one a line per rank.
fn report(outcomes: &[Outcome]) -> String {
    let Some(first) = outcomes.first() else { return String::new() };
    let mut text = format!(
        "{} ranks, {} microbatches, LLM schedule {}; activation peaks in microbatches\n\n",
        first.workload.ranks(),
        first.workload.len(),
        first.llm.unwrap_or("of the file")
    );
    text += &heads(WIDTHS, "schedule|time|ideal|bound|busy|bubble|encoder|llm|generator");
    for one in outcomes {
        let [encoder, llm, generator] = ModuleKind::ALL.map(|kind| short(one.peak(kind)));
        let cells = [
            one.name.clone(),
            short(one.simulation.time()),
            short(one.ideal),
            short(one.bound),
            percent(one.simulation.utilization()),
            percent(one.simulation.bubble_rate()),
            encoder,
            llm,
            generator,
        ];
        text += &line(WIDTHS, cells);
    }
    if let [outcome] = outcomes {
        text += "\n";
        text += &heads(RANK_WIDTHS, "rank|busy|encoder|llm|generator");
        for (rank, (busy, peak)) in outcome.simulation.busy.iter().zip(&outcome.peaks).enumerate() {
            let [encoder, llm, generator] = ModuleKind::ALL.map(|kind| short(peak[kind]));
            text += &line(RANK_WIDTHS, [rank.to_string(), short(*busy), encoder, llm, generator]);
        }
    }
    text
}

fn schedule_help() -> String {
    let title = "Schedules of the whole step, comma-separated; without it the LLM alone:";
    listed(title, registry::SCHEDULES.iter().map(|one| (one.name(), one.summary())))
}
