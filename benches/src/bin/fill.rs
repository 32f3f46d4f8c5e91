//! How near `nested-fill` comes to the work bound on random steps, and how long it takes to plan large ones.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bigmac::schedule::memory::peak_microbatches;
use bigmac::schedule::registry::schedule;
use bigmac::schedule::simulate::simulate;
use bigmac::schedule::slots::work_bound;
use bigmac::schedule::validate::validate;
use bigmac::schedule::{Limits, Options, Table, UniformCosts, Workload, ideal_time};
use clap::Parser;
use serde::Serialize;

/// Plans random steps and large ones with `nested-fill` and says by how much they miss the work bound.
///
/// A random step has p from 2 to 8, N from 4p to 6p microbatches, whole F, B, W from 1 to 4, p equal items per microbatch,
/// free communication, and with equal chance nothing to draw or drawings of p to 6p in all. Heavy encoders: E_f from p to
/// 4p, E_b from p to 6p. Light ones: E_f from 1 to p, E_b from 1 to 2p. Every table is checked: valid, at most 4
/// microbatches of encoder activations, p - s + 1 of the LLM's, 1 of the generator's, no slower than `nested` and T_ideal.
///
/// Example: cargo run --release -p bigmac-benches --bin fill -- --steps 2000 --json
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// Random steps of each kind.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Seed of the random steps.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ranks of the large steps.
    #[arg(long, default_value_t = 64)]
    ranks: usize,
    /// Microbatches of the large steps.
    #[arg(long, default_value_t = 512)]
    microbatches: usize,
    /// Steps furthest from the bound that are listed.
    #[arg(long, default_value_t = 5)]
    worst: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One planned step.
#[derive(Clone, Debug, Serialize)]
struct Step {
    ranks: usize,
    microbatches: usize,
    costs: String,
    /// Time above the work bound, in per cent of it.
    over: f64,
    /// The same of `nested`.
    nested_over: f64,
    /// How long building the table took.
    plan_seconds: f64,
    ops: usize,
}

/// Per cent above the work bound.
#[derive(Debug, Serialize)]
struct Spread {
    kind: &'static str,
    steps: usize,
    median: f64,
    p95: f64,
    p99: f64,
    most: f64,
    /// Share of the steps that reach the bound.
    reached: f64,
    /// Median of `nested` on the same steps.
    nested_median: f64,
    worst: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Report {
    random: Vec<Spread>,
    large: Vec<Step>,
}

/// Numbers that depend on the seed alone (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number from `least` to `most`.
    fn whole(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    fn cost(&mut self, least: usize, most: usize) -> f64 {
        self.whole(least, most) as f64
    }
}

fn random_step(random: &mut Random, light: bool) -> (usize, usize, UniformCosts) {
    let p = random.whole(2, 8);
    let microbatches = random.whole(4 * p, 6 * p);
    let (least, most_forward, most_backward) = if light { (1, p, 2 * p) } else { (p, 4 * p, 6 * p) };
    let mut costs = UniformCosts {
        forward: random.cost(1, 4),
        backward_input: random.cost(1, 4),
        backward_weight: random.cost(1, 4),
        encoder_forward: random.cost(least, most_forward),
        encoder_backward: random.cost(least, most_backward),
        ..UniformCosts::default()
    };
    if random.whole(0, 1) == 1 {
        let total = random.whole(p, 6 * p);
        costs.generator_forward = random.cost(0, total);
        costs.generator_backward = total as f64 - costs.generator_forward;
    }
    (p, microbatches, costs)
}

fn build(name: &str, workload: &Workload) -> Result<Table> {
    Ok(schedule(name)?.build(workload, &Options::default())?)
}

fn measure(ranks: usize, microbatches: usize, costs: UniformCosts) -> Result<Step> {
    let workload = Workload::uniform(ranks, 1, microbatches, ranks, costs, 0.0)?;
    let start = Instant::now();
    let table = build("nested-fill", &workload)?;
    let plan_seconds = start.elapsed().as_secs_f64();
    let described = format!(
        "F={} B={} W={} Ef={} Eb={} Gf={} Gb={}",
        costs.forward,
        costs.backward_input,
        costs.backward_weight,
        costs.encoder_forward,
        costs.encoder_backward,
        costs.generator_forward,
        costs.generator_backward
    );
    let context = || format!("p={ranks} N={microbatches} {described}");
    validate(&table, &workload, &Limits::default()).with_context(context)?;
    let time = simulate(&table, &workload).with_context(context)?.time();
    let nested = simulate(&build("nested", &workload)?, &workload).with_context(context)?.time();
    let ideal = ideal_time(&workload, &Options::default())?;
    let least = nested.min(ideal);
    ensure!(time <= least * (1.0 + 1e-9), "{}: {time} is above {least} of nested or T_ideal", context());
    for (stage, peak) in peak_microbatches(&table, &workload).iter().enumerate() {
        let fits = peak.encoder <= 4.0 && peak.llm <= (ranks - stage + 1) as f64 && peak.generator <= 1.0;
        ensure!(fits, "{}: stage {stage} holds {peak:?}", context());
    }
    let bound = work_bound(&workload);
    let over = |time: f64| (time / bound - 1.0).max(0.0) * 100.0;
    let ops = table.len();
    Ok(Step {
        ranks,
        microbatches,
        over: over(time),
        nested_over: over(nested),
        plan_seconds,
        ops,
        costs: described,
    })
}

fn spread(kind: &'static str, mut steps: Vec<Step>, worst: usize) -> Result<Spread> {
    let mut nested: Vec<f64> = steps.iter().map(|step| step.nested_over).collect();
    nested.sort_by(f64::total_cmp);
    steps.sort_by(|a, b| a.over.total_cmp(&b.over));
    let last = steps.len().checked_sub(1).context("--steps has to be at least 1")?;
    let at = |part: f64| steps[(last as f64 * part).round() as usize].over;
    let reached = steps.iter().filter(|step| step.over < 1e-6).count();
    Ok(Spread {
        kind,
        steps: steps.len(),
        median: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        most: at(1.0),
        reached: reached as f64 / steps.len() as f64,
        nested_median: nested[last / 2],
        worst: steps.iter().rev().take(worst).cloned().collect(),
    })
}

/// Large steps: encoders from a quarter of a stage to twice one, with and without drawings.
fn large(ranks: usize) -> Vec<UniformCosts> {
    let wide = ranks as f64;
    let costs = |encoder: f64, generator: f64| UniformCosts {
        forward: 1.0,
        backward_input: 1.0,
        backward_weight: 1.0,
        encoder_forward: encoder * wide,
        encoder_backward: 2.0 * encoder * wide,
        generator_forward: generator * wide,
        generator_backward: 2.0 * generator * wide,
    };
    vec![costs(0.25, 0.0), costs(1.0, 0.0), costs(2.0, 0.0), costs(0.0625, 0.0), costs(1.0, 1.0)]
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut random = Vec::new();
    for (kind, light) in [("heavy", false), ("light", true)] {
        let mut numbers = Random(args.seed);
        let steps = (0..args.steps).map(|_| {
            let (ranks, microbatches, costs) = random_step(&mut numbers, light);
            measure(ranks, microbatches, costs)
        });
        random.push(spread(kind, steps.collect::<Result<_>>()?, args.worst)?);
    }
    let large = large(args.ranks).into_iter().map(|costs| measure(args.ranks, args.microbatches, costs));
    let report = Report { random, large: large.collect::<Result<_>>()? };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    println!("per cent above the work bound\n");
    println!("encoders  steps  median     95%     99%    most  reached  nested's median");
    for spread in &report.random {
        println!(
            "{:<8} {:>6} {:>7.3} {:>7.3} {:>7.3} {:>7.3}  {:>6.1}% {:>16.3}",
            spread.kind,
            spread.steps,
            spread.median,
            spread.p95,
            spread.p99,
            spread.most,
            spread.reached * 100.0,
            spread.nested_median
        );
    }
    for spread in &report.random {
        println!("\nfurthest from the bound, {} encoders", spread.kind);
        spread.worst.iter().for_each(print_step);
    }
    println!("\nlarge steps");
    report.large.iter().for_each(print_step);
}

fn print_step(step: &Step) {
    println!(
        "{:>7.3} (nested {:>7.3})  p={} N={} {}  {} ops in {:.3} s",
        step.over, step.nested_over, step.ranks, step.microbatches, step.costs, step.ops, step.plan_seconds
    );
}
