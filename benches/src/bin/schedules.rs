//! Seconds per step of schedules against each other, on the same model, data and machine.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Encoder, Llm, Model, Pipeline};
use bigmac::data::StepPlan;
use bigmac::execute::{ExecuteError, Program, run};
use bigmac::model::{Placement, RankModules};
use bigmac::schedule::simulate::simulate;
use bigmac::schedule::{Microbatch, ModuleKind, Op, Phase};
use bigmac::train::{Session, program, reduce, step_task};
use bigmac_benches::spread::Spread;
use bigmac_comm::{Communicator, run_ranks};
use bigmac_runtime::Context;
use bigmac_tests::dataset::SmallSet;
use clap::Parser;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Times a training step (forwards, backwards, reduction of gradients; no optimizer) under several schedules.
///
/// Every microbatch is four captioned pictures. The model is cut so that a microbatch's encoder work is about that of one of two
/// LLM stages. Rounds are interleaved, each beginning with another schedule, so that a machine that slows down slows all of them;
/// a round's ratio is taken within the round.
///
/// Example: cargo run --release -p bigmac-benches --bin schedules -- --rounds 20 --json
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// Ranks of the pipeline, each a thread.
    #[arg(long, default_value_t = 2)]
    ranks: usize,
    /// Threads of each rank.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Microbatches of a step.
    #[arg(long, default_value_t = 8)]
    microbatches: usize,
    /// Rounds that are measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Rounds before those.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// Schedules; the others are compared with the first.
    #[arg(long, value_delimiter = ',', default_value = "nested,monolithic,phased")]
    schedules: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is said of a schedule.
#[derive(Debug, Serialize)]
struct Line {
    schedule: String,
    /// Seconds per step.
    seconds: Spread,
    /// Its seconds over those of the first schedule, round by round.
    ratio: Spread,
    /// The same ratio as the simulator foretells it from estimated costs, without communication.
    estimated_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    ranks: usize,
    threads: usize,
    microbatches: usize,
    rounds: usize,
    /// Estimated operations of a microbatch's encoder work over those of one LLM stage, forward.
    encoder_over_stage: f64,
    schedules: Vec<Line>,
}

fn config() -> Config {
    let encoder = Encoder { image_size: 64, ..Encoder::default() };
    Config {
        model: Model { encoder, llm: Llm { layers: 4, ..Llm::default() }, ..Model::default() },
        ..Config::default()
    }
}

const LINES: [&str; 1] =
    [r#"{"text": "<image> two small red circles above a large square", "images": ["0.png"]}"#];

/// Seconds of each program in each round.
fn measure(args: &Args, session: &Session, plan: &StepPlan, programs: &[Program]) -> Result<Vec<Vec<f64>>> {
    let timeout = Duration::from_secs(120);
    let mut seconds = run_ranks(args.ranks, timeout, |comm| -> Result<Vec<Vec<f64>>, ExecuteError> {
        let ctx = Context::cpu(comm.rank(), args.threads)?;
        let held = |program: &Program| {
            let placement = Placement::of(&session.shape, &program.workload)?;
            RankModules::random(&ctx, &session.shape, &placement, comm.rank(), 1)
        };
        let mut modules = programs.iter().map(held).collect::<Result<Vec<_>, _>>()?;
        let mut seconds = vec![Vec::new(); programs.len()];
        for round in 0..args.warmup + args.rounds {
            for turn in 0..programs.len() {
                let which = (round + turn) % programs.len();
                let task = step_task(session, plan, round as u64);
                comm.barrier()?;
                let began = Instant::now();
                let measured = run(&ctx, &comm, &programs[which], &task, &mut modules[which])?;
                reduce(&ctx, &comm, &mut modules[which], &measured, false)?;
                comm.barrier()?;
                if round >= args.warmup {
                    seconds[which].push(began.elapsed().as_secs_f64());
                }
            }
        }
        Ok(seconds)
    })?;
    // Barriers on both sides: every rank measured the same, the slowest rank's time.
    Ok(seconds.swap_remove(0))
}

/// Estimated forward cost of a microbatch's encoder items over that of the first LLM stage.
fn encoder_over_stage(program: &Program) -> f64 {
    let first = Microbatch(0);
    let sum = |kind: ModuleKind| -> f64 {
        let ops = program.table.iter().flat_map(|(_, op)| match op {
            Op::Compute { phase: Phase::Forward, .. } => op.units().collect(),
            _ => Vec::new(),
        });
        let units = ops.filter(|u| u.microbatch() == first && u.module.kind() == kind);
        units.map(|u| program.workload.unit_cost(u, Phase::Forward)).sum()
    };
    sum(ModuleKind::Encoder) * program.workload.ranks() as f64 / sum(ModuleKind::Llm)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&vec![&[0, 0, 0, 0][..]; args.microbatches])?;
    let build = |schedule: &String| -> Result<Program> {
        let pipeline = Pipeline { schedule: schedule.clone(), ranks: args.ranks, ..Pipeline::default() };
        let program = program(&plan, &set.session.costs, &pipeline)?;
        let ranks = program.workload.ranks();
        ensure!(ranks == args.ranks, "{schedule} takes {ranks} ranks: it can't be run beside the others");
        Ok(program)
    };
    let programs = args.schedules.iter().map(build).collect::<Result<Vec<_>>>()?;
    let seconds = measure(&args, &set.session, &plan, &programs)?;
    let times = programs.iter().map(|p| Ok(simulate(&p.table, &p.workload)?.time()));
    let times = times.collect::<Result<Vec<f64>>>()?;
    let line = |i: usize| -> Result<Line> {
        let ratios = seconds[i].iter().zip(&seconds[0]).map(|(s, first)| s / first);
        let none = "no round was measured: give --rounds at least 1";
        Ok(Line {
            schedule: args.schedules[i].clone(),
            seconds: Spread::of(seconds[i].iter().copied()).context(none)?,
            ratio: Spread::of(ratios).context(none)?,
            estimated_ratio: times[i] / times[0],
        })
    };
    let report = Report {
        ranks: args.ranks,
        threads: args.threads,
        microbatches: args.microbatches,
        rounds: args.rounds,
        encoder_over_stage: programs.first().map_or(0.0, encoder_over_stage),
        schedules: (0..programs.len()).map(line).collect::<Result<_>>()?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{} ranks of {} threads, {} microbatches, {} rounds; a microbatch's encoder work is {:.2} of an LLM stage's",
        report.ranks, report.threads, report.microbatches, report.rounds, report.encoder_over_stage
    );
    for line in &report.schedules {
        println!("{:<12} seconds per step {}", line.schedule, line.seconds);
    }
    for line in report.schedules.iter().skip(1) {
        let first = &args.schedules[0];
        println!("{:<12} over {first}: {}; estimated {:.4}", line.schedule, line.ratio, line.estimated_ratio);
    }
    Ok(())
}
