//! The shape of a step as `simulate` and `compare` take it: typed costs, a file, or uneven microbatches.

use anyhow::{bail, ensure};
use bigmac::workloads::{Frozen, Uneven, freeze, read_workload, uneven};
use bigmac_schedule::module_budget;
use bigmac_schedule::registry;
use bigmac_schedule::{
    Budget, Limits, LlmSchedule, ModuleKind, Options, PerModule, TIME, UniformCosts, Workload, is_time,
};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

/// The largest mean number of items that can be drawn.
const MOST_MEAN: f64 = 10_000.0;

/// Ranks where none are asked for.
pub(super) const RANKS: usize = 4;

/// Shape and costs of a step but for its ranks, and what its activations may take.
#[derive(Debug, Args)]
pub(super) struct Shape {
    /// Microbatches of the step
    #[arg(long, value_name = "N", default_value_t = 16)]
    microbatches: usize,

    /// LLM forward F, input gradient B, weight gradient W, both in one op BW [default: B + W]; encoder forward Ef,
    /// backward Eb; generator Gf, Gb (the last five may be left out)
    #[arg(long, value_name = "F=..,B=..,...", default_value = "F=1,B=1,W=1", value_parser = parse_costs)]
    cost: UniformCosts,

    /// Time that a value takes between two ranks
    #[arg(long, value_name = "TIME", default_value_t = 0.0, allow_negative_numbers = true)]
    p2p: f64,

    /// LLM chunks per rank
    #[arg(long, value_name = "V", default_value_t = 1)]
    chunks: usize,

    /// Equal encoder (generator) items that a microbatch consists of [default: the number of ranks]
    #[arg(long, value_name = "K")]
    items: Option<usize>,

    /// Unequal numbers of items: a third of the microbatches are text only, the others have numbers of items from a
    /// heavy-tailed (Pareto) distribution with that mean over all [default: --items]; the step's work stays the same
    #[arg(long, value_name = "SEED[,MEAN]", value_parser = parse_uneven)]
    uneven: Option<(u64, Option<f64>)>,

    /// Take ranks, microbatches, items and their costs from a TOML file (docs/compare-schedules.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ranks", "microbatches", "cost", "p2p", "chunks", "items", "uneven"])]
    workload: Option<PathBuf>,

    /// Microbatches that share an encoder or generator slot [default: the schedule chooses]
    #[arg(long, value_name = "G")]
    group: Option<usize>,

    /// Microbatches that a rank runs through one chunk before its next, where the LLM schedule interleaves chunks
    /// [default: the number of ranks, or some more where they do not divide the microbatches]
    #[arg(long, value_name = "G")]
    llm_group: Option<usize>,

    /// Modules that do not learn, comma-separated; tower: the encoder without its projector
    #[arg(long, value_name = "MODULE,...", value_delimiter = ',', value_parser = frozen())]
    freeze: Vec<Frozen>,

    /// How many times slower than its costs each rank is, comma-separated [default: 1 each]
    #[arg(long, value_name = "FACTOR,...", value_delimiter = ',')]
    slowdown: Vec<f64>,

    /// Share of the shorter of two passes that a rank hides in the longer one where a schedule runs a forward and a
    /// backward of the LLM at once (dualpipe-v, OVERLAP_F_B cells): from 0, both one after the other, to 1, the time of
    /// the longer one alone
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true)]
    overlap: f64,

    /// The most activations that a module may keep on a rank, in microbatches or bytes, as in encoder=2mb,llm=4GiB;
    /// going over it is an error
    #[arg(long, value_name = "MODULE=SIZE,...", value_delimiter = ',', value_parser = module_budget)]
    budget: Vec<(ModuleKind, Budget)>,

    /// Bytes that the activations of a module's largest microbatch take, as in encoder=300MiB, for budgets in bytes: of
    /// encoder and generator the one with the longest forward, and every item takes as much of it as its own forward is
    /// of that; of the LLM any, on one stage
    #[arg(long, value_name = "MODULE=BYTES,...", value_delimiter = ',', value_parser = parse_bytes)]
    saved: Vec<(ModuleKind, u64)>,
}

impl Shape {
    /// What a schedule on this order of the LLM's chunks is built with.
    pub(super) fn options(&self, llm: &'static LlmSchedule) -> Options {
        Options { llm, llm_group: self.llm_group, group: self.group, limits: self.limits() }
    }

    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for (kind, budget) in &self.budget {
            limits.budget[*kind] = Some(*budget);
        }
        for (kind, bytes) in &self.saved {
            limits.microbatch_bytes[*kind] = Some(*bytes);
        }
        limits
    }

    /// The step, on so many ranks where no file says how many.
    pub(super) fn workload(&self, ranks: usize) -> anyhow::Result<Workload> {
        let workload = match &self.workload {
            Some(path) => read_workload(path)?,
            None => self.typed(ranks)?,
        };
        let workload = freeze(workload, &self.freeze).with_overlap(self.overlap)?;
        if self.slowdown.is_empty() {
            Ok(workload)
        } else {
            Ok(workload.with_slowdown(self.slowdown.clone())?)
        }
    }

    fn typed(&self, ranks: usize) -> anyhow::Result<Workload> {
        let items = self.items.unwrap_or(ranks);
        if items == 0 && ranks > 0 {
            bail!(
                "--items 0 leaves encoder and generator nothing to do: leave Ef, Eb, Gf, Gb out of --cost instead"
            );
        }
        let workload = Workload::uniform(ranks, self.chunks, self.microbatches, items, self.cost, self.p2p)?;
        let Some((seed, mean)) = self.uneven else { return Ok(workload) };
        let mut loads = workload.loads().to_vec();
        uneven(&mut loads, Uneven { seed, mean: mean.unwrap_or(items as f64) })?;
        Ok(Workload::new(ranks, self.chunks, loads, PerModule::all(true), self.p2p)?)
    }
}

fn frozen() -> impl TypedValueParser<Value = Frozen> {
    let named = |name: String| Frozen::ALL.into_iter().find(|frozen| frozen.name() == name);
    PossibleValuesParser::new(Frozen::ALL.map(Frozen::name))
        .try_map(move |name| named(name).ok_or("expected one of the values above"))
}

/// What `--llm` may be.
pub(super) fn llm_help() -> String {
    listed(
        "Order of the LLM's chunks:",
        registry::LLM_SCHEDULES.iter().map(|one| (one.name(), one.summary())),
    )
}

/// Names with what they mean, a line each.
pub(super) fn listed<'a>(title: &str, names: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines = names.map(|(name, summary)| format!("\n  {name:<12} {summary}"));
    format!("{title}{}", lines.collect::<String>())
}

fn parse_costs(text: &str) -> Result<UniformCosts, String> {
    let mut given = ["F", "B", "W", "BW", "Ef", "Eb", "Gf", "Gb"].map(|name| (name, None::<f64>));
    for part in text.split(',') {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("'{part}' is not of the form NAME=TIME"))?;
        let name = name.trim();
        let slot = given.iter_mut().find(|(known, _)| *known == name);
        let slot = slot
            .ok_or_else(|| format!("'{name}' is not a valid cost; expected F, B, W, BW, Ef, Eb, Gf, Gb"))?;
        let time = value.trim().parse::<f64>().ok().filter(|time| is_time(*time));
        let time = time.ok_or_else(|| format!("{name} is '{value}', expected {TIME}"))?;
        if slot.1.replace(time).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let [f, b, w, bw, ef, eb, gf, gb] = given;
    let needed = |(name, value): (&str, Option<f64>)| value.ok_or_else(|| format!("{name} is missing"));
    let or_none = |(_, value): (&str, Option<f64>)| value.unwrap_or(0.0);
    Ok(UniformCosts {
        forward: needed(f)?,
        backward_input: needed(b)?,
        backward_weight: needed(w)?,
        backward: bw.1,
        encoder_forward: or_none(ef),
        encoder_backward: or_none(eb),
        generator_forward: or_none(gf),
        generator_backward: or_none(gb),
    })
}

fn parse_bytes(text: &str) -> Result<(ModuleKind, u64), String> {
    match module_budget(text).map_err(|error| error.to_string())? {
        (kind, Budget::Bytes(bytes)) => Ok((kind, bytes)),
        (_, Budget::Microbatches(_)) => {
            Err(format!("'{text}' is not in bytes: write it as in encoder=300MiB"))
        }
    }
}

fn parse_uneven(text: &str) -> Result<(u64, Option<f64>), String> {
    let (seed, mean) = match text.split_once(',') {
        Some((seed, mean)) => (seed, Some(mean)),
        None => (text, None),
    };
    let seed = seed
        .trim()
        .parse()
        .map_err(|_| format!("'{seed}' is not a valid seed: give a whole number from 0"))?;
    let mean = mean.map(|mean| {
        let number = mean.trim().parse::<f64>().ok().filter(|mean| *mean > 0.0 && *mean <= MOST_MEAN);
        number.ok_or_else(|| {
            format!("'{mean}' is not a valid mean number of items: give one above 0, up to {MOST_MEAN}")
        })
    });
    Ok((seed, mean.transpose()?))
}

/// The most LLM chunks and items of all schedules together that are built at one call.
const MOST_TOGETHER: usize = 1_000_000;

/// Checks that a step through so many schedules is built in seconds.
pub(super) fn check_together(workload: &Workload, schedules: usize) -> anyhow::Result<()> {
    let loads = workload.loads().iter();
    let units: usize = loads.map(|load| load.llm.len() + load.encoder.len() + load.generator.len()).sum();
    let most = MOST_TOGETHER / schedules.max(1);
    ensure!(
        schedules <= 1 || units <= most,
        "a step of {units} LLM chunks and items is too large for {schedules} schedules at once: at most {most} are \
         possible; ask for fewer schedules, or a smaller step"
    );
    Ok(())
}

/// The most rounds or steps that something is measured in.
const MOST_ROUNDS: usize = 10_000;

/// How often something is measured.
pub(super) fn rounds(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=MOST_ROUNDS).contains(count))
        .ok_or_else(|| format!("'{text}' is not a whole number from 1 to {MOST_ROUNDS}"))
}
