//! What has to hold for every schedule on any step, on many of them; how near schedules come to T_ideal; and how long
//! the simulation of a large table takes.

use anyhow::{Result, bail};
use bigmac::cost::quantiles;
use bigmac_schedule::registry::schedule;
use bigmac_schedule::{Options, UniformCosts, Workload, simulate};
use bigmac_tests::random_steps::{Evenness, Failure, Found, any, claims, each, even, hold};
use clap::Parser;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// Checks random steps, each through one schedule over one order of the LLM's chunks: the table is valid with and
/// without its communication, cannot deadlock, takes the same time either way and no less than the work bound; broken
/// tables are refused. One step in ten as many, even ones, go through nested over 1F1B for what it promises: no
/// slower than T_ideal, encoder activations of at most 2 microbatches, generator 1, LLM min(N, p - s), one more with
/// a generator.
///
/// Then prints time / T_ideal by schedule, order and evenness, and the time to simulate a table of a million ops.
///
/// Example: cargo run --release -p bigmac-benches --bin properties -- --steps 100000
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// Random steps.
    #[arg(long, default_value_t = 100_000)]
    steps: u32,
    /// Number of the first, to see a failing one again.
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// Of all draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
    /// Least number of ops of the large table.
    #[arg(long, default_value_t = 1_000_000)]
    ops: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Time over T_ideal of all steps of a kind.
#[derive(Debug, Serialize)]
struct Line {
    schedule: &'static str,
    llm: &'static str,
    evenness: &'static str,
    steps: usize,
    least: f64,
    median: f64,
    p95: f64,
    p99: f64,
    most: f64,
}

/// A large table on the clock.
#[derive(Debug, Serialize)]
struct Large {
    ops: usize,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    steps: u32,
    even_steps: u32,
    seconds: f64,
    failures: usize,
    lines: Vec<Line>,
    simulate: Large,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |threads| threads.get()));
    let started = Instant::now();
    let numbers = |count: u32| -> Range<u32> { args.from..args.from.saturating_add(count) };
    let even_steps = args.steps.div_ceil(10);
    let seed = args.seed;
    let (found, mut failures) =
        each(numbers(args.steps), threads, |number| any(seed, number).and_then(|case| hold(&case, number)));
    let (_, unkept) =
        each(numbers(even_steps), threads, |number| even(seed, number).and_then(|case| claims(&case)));
    failures.extend(unkept);
    let report = Report {
        seed,
        steps: args.steps,
        even_steps,
        seconds: started.elapsed().as_secs_f64(),
        failures: failures.len(),
        lines: lines(&found),
        simulate: large(args.ops)?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    refuse(&failures, seed)
}

fn refuse(failures: &[Failure], seed: u64) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let first: Vec<String> =
        failures.iter().take(10).map(|one| format!("{}: {}", one.number, one.what)).collect();
    bail!("{} steps of seed {seed} fail, among them\n{}", failures.len(), first.join("\n"))
}

fn lines(found: &[Found]) -> Vec<Line> {
    let mut ratios: BTreeMap<(&str, &str, Evenness), Vec<f64>> = BTreeMap::new();
    for one in found {
        if let Some(ratio) = one.ratio {
            ratios.entry((one.schedule, one.llm, one.evenness)).or_default().push(ratio);
        }
    }
    let line = |((schedule, llm, evenness), ratios): ((&'static str, &'static str, Evenness), Vec<f64>)| {
        let steps = ratios.len();
        let [least, median, p95, p99, most] = quantiles(ratios, [0.0, 0.5, 0.95, 0.99, 1.0])?;
        Some(Line { schedule, llm, evenness: evenness.name(), steps, least, median, p95, p99, most })
    };
    ratios.into_iter().filter_map(line).collect()
}

/// Simulates `nested` over 1F1B on 64 ranks, with as many microbatches as it takes.
fn large(ops: usize) -> Result<Large> {
    const RANKS: usize = 64;
    // A microbatch is a forward and a backward of stage and encoder item on every rank.
    let microbatches = ops.div_ceil(4 * RANKS);
    let costs = UniformCosts {
        forward: 1.0,
        backward_input: 1.0,
        backward_weight: 1.0,
        encoder_forward: 2.0,
        encoder_backward: 4.0,
        ..UniformCosts::default()
    };
    let workload = Workload::uniform(RANKS, 1, microbatches, RANKS, costs, 0.1)?;
    let table = schedule("nested")?.build(&workload, &Options::default())?;
    let started = Instant::now();
    simulate(&table, &workload)?;
    Ok(Large { ops: table.len(), seconds: started.elapsed().as_secs_f64() })
}

fn print(report: &Report) {
    let Report { seed, steps, even_steps, seconds, failures, lines, simulate } = report;
    println!(
        "{steps} random steps and {even_steps} even ones of seed {seed} in {seconds:.1} s: {failures} failures\n\n\
         time / T_ideal\n{:<21}{:<13}{:<17}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "schedule", "llm", "steps", "number", "least", "median", "95 %", "99 %", "most"
    );
    for Line { schedule, llm, evenness, steps, least, median, p95, p99, most } in lines {
        println!(
            "{schedule:<21}{llm:<13}{evenness:<17}{steps:>7}{least:>9.4}{median:>9.4}{p95:>9.4}{p99:>9.4}{most:>9.4}"
        );
    }
    println!("\nsimulating {} ops takes {:.3} s", simulate.ops, simulate.seconds);
}
