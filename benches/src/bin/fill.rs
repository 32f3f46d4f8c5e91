//! How near `nested-fill` comes to the work bound on random steps, and how long it takes to plan large ones.

use anyhow::{Context as _, Result, ensure};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::memory::peak_microbatches;
use bigmac_schedule::registry::schedule;
use bigmac_schedule::simulate;
use bigmac_schedule::validate;
use bigmac_schedule::work_bound;
use bigmac_schedule::{Limits, Options, Table, UniformCosts, Workload, ideal_time, lower_bound};
use clap::Parser;
use serde::Serialize;
use std::time::Instant;

/// Plans random steps and large ones with `nested-fill` and says by how much they miss the work bound.
///
/// A random step has p from 2 to 8, N from 4p to 6p microbatches, whole F, B, W from 1 to 4, p equal items per
/// microbatch, free communication, and with equal chance nothing to draw or drawings of p to 6p in all. Heavy
/// encoders: E_f from p to 4p, E_b from p to 6p. Light ones: E_f from 1 to p, E_b from 1 to 2p. Every table is
/// checked: valid, at most 4 microbatches of encoder activations, p - s + 1 of the LLM's, 1 of the generator's, no
/// slower than `nested` and T_ideal, and no faster than a lower bound.
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
    /// Time above the lower bound that memory and the chain of the stages give too, in per cent of it.
    over_chain: f64,
    /// Time of `nested` above the work bound.
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
    /// Above the lower bound that memory and the chain of the stages give too: median, 95th percentile, most.
    chain: [f64; 3],
    /// Median of `nested` on the same steps.
    nested_median: f64,
    worst: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Report {
    random: Vec<Spread>,
    large: Vec<Step>,
}

/// A whole number from `least` to `most`.
fn whole(random: &mut Philox, least: usize, most: usize) -> usize {
    least + random.below((most - least) as u32 + 1) as usize
}

fn random_step(random: &mut Philox, light: bool) -> (usize, usize, UniformCosts) {
    let p = whole(random, 2, 8);
    let microbatches = whole(random, 4 * p, 6 * p);
    let mut cost = |least, most| whole(random, least, most) as f64;
    let (least, most_forward, most_backward) = if light { (1, p, 2 * p) } else { (p, 4 * p, 6 * p) };
    let mut costs = UniformCosts {
        forward: cost(1, 4),
        backward_input: cost(1, 4),
        backward_weight: cost(1, 4),
        encoder_forward: cost(least, most_forward),
        encoder_backward: cost(least, most_backward),
        ..UniformCosts::default()
    };
    if cost(0, 1) == 1.0 {
        let total = cost(p, 6 * p);
        costs.generator_forward = cost(0, total as usize);
        costs.generator_backward = total - costs.generator_forward;
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
    let chain = lower_bound(&workload, &Limits::default())?;
    ensure!(time >= chain * (1.0 - 1e-9), "{}: {time} is below the lower bound {chain}", context());
    let over = |time: f64, bound: f64| (time / bound - 1.0).max(0.0) * 100.0;
    let bound = work_bound(&workload);
    let ops = table.len();
    Ok(Step {
        ranks,
        microbatches,
        over: over(time, bound),
        over_chain: over(time, chain),
        nested_over: over(nested, bound),
        plan_seconds,
        ops,
        costs: described,
    })
}

fn spread(kind: &'static str, mut steps: Vec<Step>, worst: usize) -> Result<Spread> {
    let sorted = |of: fn(&Step) -> f64| {
        let mut values: Vec<f64> = steps.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (nested, chain) = (sorted(|step| step.nested_over), sorted(|step| step.over_chain));
    steps.sort_by(|a, b| a.over.total_cmp(&b.over));
    let last = steps.len().checked_sub(1).context("--steps has to be at least 1")?;
    let place = |part: f64| (last as f64 * part).round() as usize;
    let at = |part: f64| steps[place(part)].over;
    let reached = steps.iter().filter(|step| step.over < 1e-6).count();
    Ok(Spread {
        kind,
        steps: steps.len(),
        median: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        most: at(1.0),
        reached: reached as f64 / steps.len() as f64,
        chain: [0.5, 0.95, 1.0].map(|part| chain[place(part)]),
        nested_median: nested[place(0.5)],
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
        backward: None,
    };
    vec![costs(0.25, 0.0), costs(1.0, 0.0), costs(2.0, 0.0), costs(0.0625, 0.0), costs(1.0, 1.0)]
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut random = Vec::new();
    for (kind, light) in [("heavy", false), ("light", true)] {
        let purpose = Purpose::new("bench.fill");
        let steps = (0..args.steps).map(|step| {
            let mut random = Philox::new(args.seed, purpose, u32::from(light), step as u32);
            let (ranks, microbatches, costs) = random_step(&mut random, light);
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
    println!(
        "encoders  steps  median     95%     99%    most  reached  nested's median  above the chain's: median     95%    most"
    );
    for spread in &report.random {
        println!(
            "{:<8} {:>6} {:>7.3} {:>7.3} {:>7.3} {:>7.3}  {:>6.1}% {:>16.3} {:>26.3} {:>7.3} {:>7.3}",
            spread.kind,
            spread.steps,
            spread.median,
            spread.p95,
            spread.p99,
            spread.most,
            spread.reached * 100.0,
            spread.nested_median,
            spread.chain[0],
            spread.chain[1],
            spread.chain[2]
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
        "{:>7.3} (above the chain's {:>7.3}, nested {:>7.3})  p={} N={} {}  {} ops in {:.3} s",
        step.over,
        step.over_chain,
        step.nested_over,
        step.ranks,
        step.microbatches,
        step.costs,
        step.ops,
        step.plan_seconds
    );
}
