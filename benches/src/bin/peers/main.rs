//! Samples per second of training, beside PyTorch.
//!
//! Ours is `bigmac::train::Training` as it stands: planning, decoding pictures, forward, backward, reduction, clipping,
//! optimizer and metrics. The other side is the same model in eager PyTorch (`benches/peers/torch_step.py`) on the
//! same samples and as many threads; what it trains on is made before its clock starts. The two take turns of a few
//! steps, so that whatever else the machine does meets both; the first step of every turn is left out, since caches
//! are cold and, with several ranks, the others may have begun it while they waited.

mod ours;
mod torch;

use anyhow::bail;
use bigmac::config;
use bigmac::cost::Spread;
use bigmac_benches::python;
use clap::Parser;
use ours::Turns;
use serde::Serialize;
use std::path::PathBuf;
use torch::Torch;

/// Samples per second of training, beside PyTorch on the same model, samples and threads.
///
/// PyTorch is looked for in the interpreter that BIGMAC_PYTHON names, else in python3; without it only our side is
/// printed.
#[derive(Parser, Debug)]
#[command(
    after_help = "Example:\n  BIGMAC_PYTHON=venv/bin/python cargo run --release -p bigmac-benches --bin peers -- --ranks 1,2"
)]
struct Peers {
    /// TOML file over the defaults.
    config: Option<PathBuf>,
    /// Ranks to run with, one thread each; PyTorch has as many threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    ranks: Vec<usize>,
    /// Turns of each side.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    turns: u64,
    /// Steps of a turn; the first is not counted.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..))]
    steps: u64,
    /// Any key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What one number of threads gave.
#[derive(Debug, Serialize)]
struct Outcome {
    threads: usize,
    /// Samples per second, per turn.
    ours: Spread,
    peer: Option<Peer>,
}

#[derive(Debug, Serialize)]
struct Peer {
    torch: String,
    layout: String,
    /// Samples per second, per turn.
    samples_per_second: Spread,
    /// Ours over theirs, per pair of turns.
    ratio: Spread,
    /// Losses on the first step's samples before anything is learned, ours and theirs: alike, though not equal, since
    /// weights are random on both sides, and its pictures are too.
    first_losses: [f64; 2],
}

fn main() -> anyhow::Result<()> {
    let args = Peers::parse();
    let python = python::interpreter();
    let missing = python::missing(&python).err();
    if let (Some(reason), false) = (&missing, args.json) {
        println!("PyTorch is not there, so only our side is measured: {reason}\n");
    }
    if cfg!(debug_assertions) {
        eprintln!("our side was built without --release: it is slower than it should be");
    }
    let mut outcomes = Vec::new();
    for &ranks in &args.ranks {
        outcomes.push(measure(&args, ranks, missing.is_none().then_some(&*python))?);
        if let (Some(outcome), false) = (outcomes.last(), args.json) {
            print_outcome(outcome);
        }
    }
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "outcomes": outcomes, "torch_missing": missing.map(|e| e.to_string()) })
        );
    }
    Ok(())
}

fn measure(args: &Peers, ranks: usize, python: Option<&str>) -> anyhow::Result<Outcome> {
    let steps = args.turns * args.steps;
    let fixed = [
        format!("pipeline.ranks={ranks}"),
        "pipeline.threads=1".into(),
        format!("train.steps={steps}"),
        "output.sample_every=0".into(),
        "output.checkpoint_every=0".into(),
        // The other ranks wait through PyTorch's turns.
        "pipeline.timeout=3600.0".into(),
    ];
    let settings: Vec<String> = args.settings.iter().cloned().chain(fixed).collect();
    let config = config::read(args.config.as_deref(), &settings)?;
    let session = bigmac::train::Session::open(&config, &|_| {})?;
    let mut torch = python.map(|python| Torch::start(python, &session, ranks)).transpose()?;
    if let Some(torch) = &torch {
        let here = ours::trainable(&session)?;
        if torch.ready.parameters != here {
            bail!(
                "PyTorch's model has {} parameters, ours {here}: they are not the same",
                torch.ready.parameters
            );
        }
    }
    let turns = Turns::run(&session, args.steps, |step| {
        torch.as_mut().map(|torch| torch.turn(&session, step..step + args.steps)).transpose()
    })?;
    let batch = config.train.batch as f64;
    let rates =
        |turns: &[Vec<f64>]| -> Vec<f64> { turns.iter().map(|seconds| rate(batch, seconds)).collect() };
    let ours = rates(&turns.ours);
    let spread = |values: &[f64]| {
        Spread::of(values.iter().copied()).ok_or_else(|| anyhow::anyhow!("no turn was measured"))
    };
    let peer = torch.map(|torch| {
        let theirs = rates(&turns.theirs);
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        anyhow::Ok(Peer {
            torch: torch.ready.torch.clone(),
            layout: torch.ready.layout.clone(),
            samples_per_second: spread(&theirs)?,
            ratio: spread(&ratios)?,
            first_losses: [turns.loss, torch.ready.loss],
        })
    });
    Ok(Outcome { threads: ranks, ours: spread(&ours)?, peer: peer.transpose()? })
}

/// Samples per second of a turn, its first step left out.
fn rate(batch: f64, seconds: &[f64]) -> f64 {
    let counted = &seconds[1.min(seconds.len())..];
    batch * counted.len() as f64 / counted.iter().sum::<f64>()
}

fn print_outcome(outcome: &Outcome) {
    let line = |name: &str, s: &Spread, digits: usize| {
        println!("  {name:<28}{:>8.digits$}   ({:.digits$} to {:.digits$})", s.median, s.least, s.most);
    };
    println!("{} rank(s) of one thread, median of turns (least to most)", outcome.threads);
    line("ours, samples/s", &outcome.ours, 1);
    if let Some(peer) = &outcome.peer {
        line(&format!("PyTorch {}, samples/s", peer.torch), &peer.samples_per_second, 1);
        line("ours / PyTorch", &peer.ratio, 2);
        let [here, there] = peer.first_losses;
        println!("  PyTorch's text is {}; losses before learning {here:.2} and {there:.2}", peer.layout);
    }
    println!();
}
