//! Every schedule against `nested`, run for real: in parallel on as many ranks as there are processors, one op at a time
//! on more.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Generator, Model, Pipeline};
use bigmac::cost::{CostModel, Spread};
use bigmac::data::StepPlan;
use bigmac::execute::Program;
use bigmac::measure::{Contender, Entry, Rounds, Way, contender, take, take_turns};
use bigmac::profile::processor;
use bigmac::sizes::{Encoder, Llm};
use bigmac::workloads::{Uneven, uneven};
use bigmac_benches::chart::{Bar, Emphasis, Heading, bars};
use bigmac_schedule::{ItemCost, Load, ModuleKind, Phase, Workload, registry};
use bigmac_tests::dataset::SmallSet;
use clap::Parser;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Times every schedule over that of `nested` on the same steps, for real.
///
/// Encoder and generator each weigh about as much as one stage of the LLM; there are 4 microbatches per rank, of as many
/// pictures (and drawings) as ranks, or of heavy-tailed numbers of them. Schedules are planned on a profile that is taken
/// first, and `predicted` is what the simulation makes of it. Where ranks are more than processors, one op runs at a
/// time, and what each took is put on the ranks' clocks (`bigmac compare --one-at-a-time` does the same).
///
/// Example: cargo run --release -p bigmac-benches --bin speedup -- --svg docs/speedup.svg
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// Ranks of the pipelines.
    #[arg(long, value_delimiter = ',', default_value = "2,4,8")]
    ranks: Vec<usize>,
    /// Seeds of weights and of heavy-tailed numbers of pictures.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Turns of every schedule with each seed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of a rank.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// LLM layers of each rank; encoder and generator get as many as weigh the same. Fewer are faster to measure.
    #[arg(long, default_value_t = 3)]
    layers: usize,
    /// Turns of each order in the profile.
    #[arg(long, default_value_t = 3)]
    profile_rounds: usize,
    /// Only take profiles, and say what they let expect.
    #[arg(long)]
    predict: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Draw the times at the largest number of ranks, captions and drawings, heavy-tailed, into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// What steps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Kind {
    /// Pictures to be drawn too, not only pictures to be read.
    drawings: bool,
    /// Heavy-tailed numbers of pictures to a microbatch, a third of them text only.
    heavy_tailed: bool,
}

const KINDS: [Kind; 4] = [
    Kind { drawings: false, heavy_tailed: false },
    Kind { drawings: false, heavy_tailed: true },
    Kind { drawings: true, heavy_tailed: false },
    Kind { drawings: true, heavy_tailed: true },
];

impl Kind {
    fn words(self) -> String {
        let what = if self.drawings { "captions and drawings" } else { "captions only" };
        format!("{what}, {}", if self.heavy_tailed { "heavy-tailed" } else { "even" })
    }
}

const MICROBATCHES_PER_RANK: usize = 4;
const REFERENCE: &str = "nested";

/// A text alone, a picture to be read, a picture to be drawn.
const LINES: [&str; 3] = [
    r#"{"text": "what stands on a hill at the sea, seen from a boat in the evening light"}"#,
    r#"{"text": "<image> two small red circles above a square and a large green one below", "images": ["0.png"]}"#,
    r#"{"text": "a large blue triangle on the left, with a small yellow square inside", "draw": "1.png"}"#,
];
const TEXT: usize = 0;
const CAPTION: usize = 1;
const DRAWING: usize = 2;

/// One schedule on one kind of step.
#[derive(Debug, Serialize)]
struct Row {
    ranks: usize,
    kind: Kind,
    schedule: &'static str,
    /// Why it was not run.
    error: Option<String>,
    /// Time over that of `nested`, simulated on the profile.
    predicted: Option<f64>,
    /// The same measured, turn by turn, over all seeds.
    ratio: Option<Spread>,
    /// Seconds of a step.
    seconds: Option<Spread>,
    /// By module, the most bytes of activations on any rank.
    peak_bytes: [u64; 3],
    /// Bytes of all modules together on the fullest rank.
    fullest: u64,
}

/// All turns of a schedule, over the seeds.
#[derive(Default)]
struct Taken {
    error: Option<String>,
    predicted: Vec<f64>,
    seconds: Vec<f64>,
    ratios: Vec<f64>,
    peaks: [u64; 3],
    fullest: u64,
}

fn config(args: &Args, ranks: usize, seed: u64) -> Config {
    let llm = Llm { layers: args.layers * ranks, ..Llm::default() };
    let encoder = Encoder { layers: (10 * args.layers).div_ceil(3), ..Encoder::default() };
    let generator = Generator { layers: args.layers, ..Generator::default() };
    let model = Model { llm, encoder, generator, ..Model::default() };
    let mut config = Config { model, ..Config::default() };
    config.run.seed = seed;
    config.pipeline = Pipeline { ranks, threads: args.threads, ..Pipeline::default() };
    config.train.tokens_per_microbatch = 16_384;
    config
}

/// The samples of every microbatch.
fn microbatches(ranks: usize, kind: Kind, seed: u64) -> Result<Vec<Vec<usize>>> {
    let count = MICROBATCHES_PER_RANK * ranks;
    let item = ItemCost { forward: 1.0, backward: 1.0 };
    let load = Load { encoder: vec![item; ranks], generator: vec![item; ranks], llm: Vec::new() };
    let mut loads = vec![load; count];
    if kind.heavy_tailed {
        uneven(&mut loads, Uneven { seed, mean: ranks as f64 })?;
    }
    let samples = |load: &Load| {
        let mut samples = vec![CAPTION; load.encoder.len()];
        if kind.drawings {
            samples.extend(vec![DRAWING; load.generator.len()]);
        }
        // Text fills what pictures leave, so that the LLM's work differs less than theirs, as packing has it.
        let pictures = if kind.drawings { 2 * ranks } else { ranks };
        let most = if kind.heavy_tailed { 2 * pictures } else { pictures };
        samples.extend(vec![TEXT; most.saturating_sub(samples.len()).max(usize::from(samples.is_empty()))]);
        samples
    };
    Ok(loads.iter().map(samples).collect())
}

/// Encoder, LLM stage and generator by counted operations, of all microbatches together, over those of a stage.
fn weights(workload: &Workload) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for unit in workload.units() {
        let time = workload.unit_cost(unit, Phase::Forward) + workload.unit_cost(unit, Phase::Backward);
        let place = ModuleKind::ALL.iter().position(|kind| *kind == unit.module.kind());
        sums[place.unwrap_or_default()] += time;
    }
    let stage = sums[1] / workload.ranks() as f64;
    [sums[0] / stage, 1.0, sums[2] / stage]
}

fn run(args: &Args, ranks: usize, kind: Kind, way: Way) -> Result<Vec<Row>> {
    let schedules: Vec<_> = registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()).collect();
    let mut taken: BTreeMap<&'static str, Taken> = BTreeMap::new();
    for seed in &args.seeds {
        let config = config(args, ranks, *seed);
        let set = SmallSet::new(&LINES, &config)?;
        let session = &set.session;
        let samples = microbatches(ranks, kind, *seed)?;
        let plan: StepPlan = set.plan(&samples.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        if !args.json {
            let weights = weights(&session.costs.workload(&plan, ranks, 1)?);
            println!("seed {seed}: encoder, stage, generator weigh {weights:.2?}");
        }
        let llm = registry::llm_schedule(&config.pipeline.llm)?;
        let profile = take(session, 1, Rounds { warmup: 1, kept: args.profile_rounds }, &|| ())?;
        let costs = CostModel { rates: profile.rates(&plan)?, ..session.costs.clone() };
        let effects = profile.effects();
        let mut contenders: Vec<Contender> = Vec::new();
        for schedule in &schedules {
            let taken = taken.entry(schedule.name()).or_default();
            match contender(&plan, &costs, &config.pipeline, schedule, llm) {
                Ok(one) => contenders.push(one),
                Err(error) => taken.error = Some(error.to_string()),
            }
        }
        let reference = contenders.iter().position(|one| one.schedule == REFERENCE);
        let reference = reference.with_context(|| format!("{REFERENCE} does not run"))?;
        let mut predicted = Vec::with_capacity(contenders.len());
        for Contender { program: Program { table, workload, .. }, .. } in &contenders {
            let alone = effects.alone(table, workload);
            let durations = match way {
                Way::Together => effects.together(table, workload, &alone)?,
                Way::OneAtATime => alone,
            };
            predicted.push(effects.clocked(table, workload, &durations)?.seconds);
        }
        for (one, seconds) in contenders.iter().zip(&predicted) {
            taken.entry(one.schedule).or_default().predicted.push(seconds / predicted[reference]);
        }
        if args.predict {
            continue;
        }
        let entries: Vec<_> = contenders.iter().map(|one| Entry { program: &one.program, way }).collect();
        let rounds = Rounds { warmup: 1, kept: args.rounds };
        let contest = take_turns(session, &plan, &entries, rounds, &|| ())?;
        for (one, turns) in contenders.iter().zip(&contest.turns) {
            let taken = taken.entry(one.schedule).or_default();
            for (turn, nested) in turns.iter().zip(&contest.turns[reference]) {
                taken.seconds.push(turn.seconds);
                taken.ratios.push(turn.seconds / nested.seconds);
                for rank in &turn.ranks {
                    let saved = ModuleKind::ALL.map(|kind| rank.saved[kind] as u64);
                    taken.fullest = taken.fullest.max(saved.iter().sum());
                    taken.peaks.iter_mut().zip(saved).for_each(|(peak, saved)| *peak = saved.max(*peak));
                }
            }
        }
    }
    let row = |schedule: &'static str| {
        let one = taken.remove(schedule).unwrap_or_default();
        Row {
            ranks,
            kind,
            schedule,
            predicted: Spread::of(one.predicted).map(|spread| spread.median),
            ratio: Spread::of(one.ratios),
            seconds: Spread::of(one.seconds),
            peak_bytes: one.peaks,
            fullest: one.fullest,
            error: one.error,
        }
    };
    Ok(schedules.iter().map(|schedule| schedule.name()).map(row).collect())
}

fn print(rows: &[Row]) {
    println!(
        "{:<20} {:>10} {:>10} {:>18} {:>11} {:>9} {:>9} {:>9} {:>9}",
        "schedule",
        "predicted",
        "x nested",
        "(quartiles)",
        "seconds",
        "encoder",
        "llm",
        "generator",
        "together"
    );
    for row in rows {
        if let Some(error) = &row.error {
            println!("{:<20} none: {error}", row.schedule);
            continue;
        }
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        let quartiles = row.ratio.map(|ratio| format!("({:.3} to {:.3})", ratio.lower, ratio.upper));
        let kib = |bytes: u64| format!("{:.0}", bytes as f64 / 1024.0);
        println!(
            "{:<20} {:>10} {:>10} {:>18} {:>11} {:>9} {:>9} {:>9} {:>9}",
            row.schedule,
            ratio(row.predicted),
            ratio(row.ratio.map(|ratio| ratio.median)),
            quartiles.unwrap_or_default(),
            row.seconds.map_or("-".to_owned(), |seconds| format!("{:.4}", seconds.median)),
            kib(row.peak_bytes[0]),
            kib(row.peak_bytes[1]),
            kib(row.peak_bytes[2]),
            kib(row.fullest),
        );
    }
    println!();
}

/// Times at the largest number of ranks, that of `nested` being 100.
fn draw(rows: &[Row], ranks: usize, one_at_a_time: bool) -> String {
    let wanted = |row: &&Row| row.ranks == ranks && row.kind == KINDS[3];
    let mut drawn: Vec<Bar> = Vec::new();
    for row in rows.iter().filter(wanted) {
        let Some(ratio) = row.ratio else { continue };
        let strong = row.schedule.starts_with(REFERENCE);
        drawn.push(Bar {
            name: row.schedule.to_owned(),
            value: 100.0 * ratio.median,
            note: format!("{:.0} MiB", row.fullest as f64 / f64::from(1 << 20)),
            emphasis: if strong { Emphasis::Strong } else { Emphasis::Weak },
        });
    }
    drawn.sort_by(|a, b| b.value.total_cmp(&a.value));
    let how = if one_at_a_time { "ops measured one at a time" } else { "measured" };
    let heading = Heading {
        title: "Time of a step, nested = 100".into(),
        subtitle: format!(
            "{ranks} ranks, captions and drawings, {how}; in grey: activations of the fullest rank"
        ),
    };
    bars(&heading, &drawn, (100.0, REFERENCE))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let counts = [args.seeds.len(), args.rounds, args.layers];
    ensure!(!counts.contains(&0), "at least one seed, one round and one layer are needed");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let way = |ranks: usize| {
        if ranks * args.threads > processors { Way::OneAtATime } else { Way::Together }
    };
    if !args.json {
        let processor = processor().unwrap_or_else(|| "unknown".to_owned());
        println!("{processor}, {processors} processors; KiB of activations on the fullest rank\n");
    }
    let mut rows = Vec::new();
    for &ranks in &args.ranks {
        for kind in KINDS {
            if !args.json {
                let how = match way(ranks) {
                    Way::Together => "in parallel",
                    Way::OneAtATime => "one op at a time",
                };
                println!("{ranks} ranks, {how}; {}", kind.words());
            }
            let of_kind = run(&args, ranks, kind, way(ranks))?;
            if !args.json {
                print(&of_kind);
            }
            rows.extend(of_kind);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    if let (Some(path), Some(&ranks)) = (&args.svg, args.ranks.iter().max()) {
        let svg = draw(&rows, ranks, way(ranks) == Way::OneAtATime);
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
