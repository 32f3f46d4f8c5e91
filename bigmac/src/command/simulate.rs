//! `bigmac simulate`: a schedule on the clock, without running anything.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bigmac::schedule::ideal_time;
use bigmac::schedule::lower::lower;
use bigmac::schedule::memory::peak_microbatches;
use bigmac::schedule::registry;
use bigmac::schedule::render::{Format, Timeline};
use bigmac::schedule::simulate::{Simulation, simulate};
use bigmac::schedule::slots::work_bound;
use bigmac::schedule::torch_csv;
use bigmac::schedule::validate::validate;
use bigmac::schedule::{
    Budget, Learns, Limits, ModuleKind, Options, PerModule, Table, UniformCosts, Workload,
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::print;

const EXAMPLE: &str = "Example: what nesting the encoder saves over running it inside the first stage, as a picture
  bigmac simulate --schedule monolithic,nested --ranks 4 --microbatches 16 \\
      --cost F=1,B=1,W=1,Ef=2,Eb=4 --timeline steps.html

Output: time of the step; ideal, the LLM schedule's time plus all slots at their largest shares; bound, which no
schedule can beat; the ranks' busy share; bubble as Zero Bubble counts it; activation peaks. JSON is one object per
schedule (a list for several): time, ideal, bound, bubble_rate, ranks: [{busy, peak: {encoder, llm, generator}}].";

/// Simulate a pipeline schedule: its time, bubble, and the activations it keeps alive.
///
/// Costs are in any unit of time. LLM costs are those of one stage (all chunks of a rank) and one microbatch; encoder
/// and generator costs those of one microbatch's items together.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Simulate {
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help = schedule_help())]
    schedule: Vec<String>,

    #[arg(long, value_name = "NAME", default_value = "1f1b", help = llm_help())]
    llm: String,

    /// Ranks, which are the LLM's pipeline stages
    #[arg(long, value_name = "P", default_value_t = 4)]
    ranks: usize,

    /// Microbatches of the step
    #[arg(long, value_name = "N", default_value_t = 16)]
    microbatches: usize,

    /// LLM forward F, input gradient B, weight gradient W; encoder forward Ef, backward Eb; generator Gf, Gb (the
    /// last four may be left out)
    #[arg(long, value_name = "F=..,B=..,...", default_value = "F=1,B=1,W=1", value_parser = parse_costs)]
    cost: UniformCosts,

    /// Time that a value takes between two ranks
    #[arg(long, value_name = "TIME", default_value_t = 0.0)]
    p2p: f64,

    /// LLM chunks per rank
    #[arg(long, value_name = "V", default_value_t = 1)]
    chunks: usize,

    /// Equal encoder (generator) items that a microbatch consists of [default: the number of ranks]
    #[arg(long, value_name = "K")]
    items: Option<usize>,

    /// Microbatches that share an encoder or generator slot [default: the schedule chooses]
    #[arg(long, value_name = "G")]
    group: Option<usize>,

    /// Microbatches that a rank runs through one chunk before its next, where the LLM schedule interleaves chunks
    /// [default: the number of ranks]
    #[arg(long, value_name = "G")]
    llm_group: Option<usize>,

    /// Modules that do not learn, comma-separated
    #[arg(long, value_name = "MODULE,...", value_delimiter = ',')]
    freeze: Vec<ModuleName>,

    /// How many times slower than its costs each rank is, comma-separated [default: 1 each]
    #[arg(long, value_name = "FACTOR,...", value_delimiter = ',')]
    slowdown: Vec<f64>,

    /// The most activations that a module may keep on a rank, in microbatches or bytes, as in encoder=2mb,llm=4GiB;
    /// going over it is an error
    #[arg(long, value_name = "MODULE=SIZE,...", value_delimiter = ',', value_parser = parse_budget)]
    budget: Vec<(ModuleKind, Budget)>,

    /// Bytes that one microbatch's activations of a module take, as in encoder=300MiB, for budgets in bytes
    #[arg(long, value_name = "MODULE=BYTES,...", value_delimiter = ',', value_parser = parse_bytes)]
    saved: Vec<(ModuleKind, u64)>,

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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModuleName {
    Encoder,
    Llm,
    Generator,
}

/// A schedule and what it does.
struct Outcome {
    name: &'static str,
    workload: Workload,
    table: Table,
    simulation: Simulation,
    ideal: f64,
    bound: f64,
    peaks: Vec<PerModule<f64>>,
}

impl Simulate {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let format = self.timeline.as_deref().map(Format::of).transpose()?;
        let options = Options {
            llm: registry::llm_schedule(&self.llm)?,
            llm_group: self.llm_group,
            group: self.group,
            limits: self.limits(),
        };
        let workload = self.workload()?;
        let alone = ["llm".to_owned()];
        let names = if self.schedule.is_empty() { &alone[..] } else { &self.schedule };
        if let (Some(path), true) = (&self.table, names.len() > 1) {
            bail!(
                "--table {} holds one schedule, but {} were given: ask for one of them",
                path.display(),
                names.len()
            );
        }
        let outcomes: Vec<Outcome> = names
            .iter()
            .map(|name| self.outcome(name, &workload, &options))
            .collect::<anyhow::Result<_>>()?;
        if let (Some(path), Some(format)) = (&self.timeline, format) {
            let timelines: Vec<Timeline> = outcomes.iter().map(Outcome::timeline).collect();
            write(path, &format.draw(&timelines))?;
        }
        if let (Some(path), [outcome]) = (&self.table, &outcomes[..]) {
            write(path, &self.ops(path, outcome)?)?;
        }
        let text = if self.json { self.json(&outcomes) } else { report(&outcomes, &options) };
        print(&text)
    }

    fn workload(&self) -> anyhow::Result<Workload> {
        let items = self.items.unwrap_or(self.ranks);
        if items == 0 {
            bail!(
                "--items 0 leaves encoder and generator nothing to do: leave Ef, Eb, Gf, Gb out of --cost instead"
            );
        }
        let workload =
            Workload::uniform(self.ranks, self.chunks, self.microbatches, items, self.cost, self.p2p)?;
        let mut learns = Learns::default();
        for module in &self.freeze {
            match module {
                ModuleName::Encoder => learns.encoder = false,
                ModuleName::Llm => learns.llm = false,
                ModuleName::Generator => learns.generator = false,
            }
        }
        let workload = workload.with_learns(learns);
        if self.slowdown.is_empty() {
            Ok(workload)
        } else {
            Ok(workload.with_slowdown(self.slowdown.clone())?)
        }
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for (kind, budget) in &self.budget {
            limits.budget[*kind] = Some(*budget);
        }
        for (kind, bytes) in &self.saved {
            limits.microbatch_bytes[*kind] = Some(*bytes);
        }
        limits
    }

    fn outcome(&self, name: &str, workload: &Workload, options: &Options) -> anyhow::Result<Outcome> {
        let schedule = registry::schedule(name)?;
        let shape = workload;
        let workload = schedule.workload(shape);
        let table = schedule.build(&workload, options)?;
        validate(&table, &workload, &self.limits()).with_context(|| format!("schedule `{name}`"))?;
        let simulation = simulate(&table, &workload)?;
        // A chain's ideal is that of the same step on the ranks that were asked for.
        let ideal = ideal_time(if schedule.is_whole() { shape } else { &workload }, options)?;
        let bound = work_bound(&workload);
        let peaks = peak_microbatches(&table, &workload);
        Ok(Outcome { name: schedule.name(), workload, table, simulation, ideal, bound, peaks })
    }

    /// The ops as text, or as the CSV of torch.distributed.pipelining for a file that is called so.
    fn ops(&self, path: &Path, outcome: &Outcome) -> anyhow::Result<String> {
        if path.extension().is_some_and(|extension| extension == "csv") {
            return Ok(torch_csv::write(&outcome.table)?);
        }
        let table =
            if self.lowered { lower(&outcome.table, &outcome.workload)? } else { outcome.table.clone() };
        Ok(table.to_string())
    }

    fn json(&self, outcomes: &[Outcome]) -> String {
        let mut objects: Vec<Value> = outcomes.iter().map(|outcome| outcome.json(&self.llm)).collect();
        let value = if objects.len() == 1 { objects.remove(0) } else { Value::Array(objects) };
        format!("{value:#}\n")
    }
}

impl Outcome {
    fn timeline(&self) -> Timeline {
        Timeline::simulated(self.name, &self.table, &self.workload, &self.simulation)
    }

    fn json(&self, llm: &str) -> Value {
        let ranks: Vec<Value> = self
            .simulation
            .busy
            .iter()
            .zip(&self.peaks)
            .map(|(busy, peak)| {
                json!({ "busy": busy,
                    "peak": { "encoder": peak.encoder, "llm": peak.llm, "generator": peak.generator } })
            })
            .collect();
        json!({
            "schedule": self.name,
            "llm": llm,
            "time": self.simulation.time(),
            "ideal": self.ideal,
            "bound": self.bound,
            "bubble_rate": self.simulation.bubble_rate(),
            "ranks": ranks,
        })
    }

    /// The largest peak over all ranks.
    fn peak(&self, kind: ModuleKind) -> f64 {
        self.peaks.iter().map(|peak| peak[kind]).fold(0.0, f64::max)
    }
}

/// What a person reads: a line per schedule, and for a single one a line per rank.
fn report(outcomes: &[Outcome], options: &Options) -> String {
    let Some(first) = outcomes.first() else { return String::new() };
    let mut text = format!(
        "{} ranks, {} microbatches, LLM schedule {}; activation peaks in microbatches\n\n",
        first.workload.ranks(),
        first.workload.len(),
        options.llm.name()
    );
    // Writing to a String cannot fail, so the results of writeln! carry nothing.
    let _ = writeln!(
        text,
        "{:<14}{:>10}{:>10}{:>10}{:>9}{:>9}{:>10}{:>8}{:>11}",
        "schedule", "time", "ideal", "bound", "busy", "bubble", "encoder", "llm", "generator"
    );
    for outcome in outcomes {
        let _ = writeln!(
            text,
            "{:<14}{:>10}{:>10}{:>10}{:>8.1}%{:>8.1}%{:>10}{:>8}{:>11}",
            outcome.name,
            short(outcome.simulation.time()),
            short(outcome.ideal),
            short(outcome.bound),
            100.0 * outcome.simulation.utilization(),
            100.0 * outcome.simulation.bubble_rate(),
            short(outcome.peak(ModuleKind::Encoder)),
            short(outcome.peak(ModuleKind::Llm)),
            short(outcome.peak(ModuleKind::Generator)),
        );
    }
    if let [outcome] = outcomes {
        let _ =
            writeln!(text, "\n{:<14}{:>10}{:>48}{:>8}{:>11}", "rank", "busy", "encoder", "llm", "generator");
        for (rank, (busy, peak)) in outcome.simulation.busy.iter().zip(&outcome.peaks).enumerate() {
            let (encoder, llm, generator) = (short(peak.encoder), short(peak.llm), short(peak.generator));
            let _ = writeln!(text, "{rank:<14}{:>10}{encoder:>48}{llm:>8}{generator:>11}", short(*busy));
        }
    }
    text
}

/// At most three decimals, without trailing zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

fn schedule_help() -> String {
    let lines = registry::SCHEDULES
        .iter()
        .map(|schedule| format!("\n  {:<12} {}", schedule.name(), schedule.summary()));
    format!(
        "Schedules of the whole step, comma-separated; without it the LLM alone:{}",
        lines.collect::<String>()
    )
}

fn llm_help() -> String {
    let schedules = registry::LLM_SCHEDULES.iter();
    let lines = schedules.map(|schedule| format!("\n  {:<12} {}", schedule.name(), schedule.summary()));
    format!("Order of the LLM's chunks:{}", lines.collect::<String>())
}

fn parse_costs(text: &str) -> Result<UniformCosts, String> {
    let mut given: [(&str, Option<f64>); 7] =
        ["F", "B", "W", "Ef", "Eb", "Gf", "Gb"].map(|name| (name, None));
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is no NAME=TIME"))?;
        let name = name.trim();
        let slot = given.iter_mut().find(|(known, _)| *known == name);
        let slot =
            slot.ok_or_else(|| format!("there is no cost `{name}`; there are F, B, W, Ef, Eb, Gf, Gb"))?;
        let time = value.trim().parse::<f64>().ok().filter(|time| time.is_finite() && *time >= 0.0);
        let time =
            time.ok_or_else(|| format!("{name} is `{value}`, but a time is a number that is not negative"))?;
        if slot.1.replace(time).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let [f, b, w, ef, eb, gf, gb] = given;
    let needed = |(name, value): (&str, Option<f64>)| value.ok_or_else(|| format!("{name} is missing"));
    let or_none = |(_, value): (&str, Option<f64>)| value.unwrap_or(0.0);
    Ok(UniformCosts {
        forward: needed(f)?,
        backward_input: needed(b)?,
        backward_weight: needed(w)?,
        encoder_forward: or_none(ef),
        encoder_backward: or_none(eb),
        generator_forward: or_none(gf),
        generator_backward: or_none(gb),
    })
}

fn parse_budget(text: &str) -> Result<(ModuleKind, Budget), String> {
    let (kind, size) = parse_module(text)?;
    Ok((kind, size.parse::<Budget>().map_err(|error| error.to_string())?))
}

fn parse_bytes(text: &str) -> Result<(ModuleKind, u64), String> {
    match parse_budget(text)? {
        (kind, Budget::Bytes(bytes)) => Ok((kind, bytes)),
        (_, Budget::Microbatches(_)) => {
            Err(format!("`{text}` is not in bytes: write it as in encoder=300MiB"))
        }
    }
}

fn parse_module(text: &str) -> Result<(ModuleKind, &str), String> {
    let (name, size) = text.split_once('=').ok_or_else(|| format!("`{text}` is no MODULE=SIZE"))?;
    let kind = ModuleKind::ALL.into_iter().find(|kind| kind.name() == name.trim());
    let kind =
        kind.ok_or_else(|| format!("there is no module `{name}`; there are encoder, llm, generator"))?;
    Ok((kind, size.trim()))
}
