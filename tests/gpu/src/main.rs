//! Tests of everything on a GPU that a replay on the CPU can't show, or shows at small sizes only. `docs/gpu.md` says how to run them.
//!
//! They run on the device replay as well, at sizes that it can do: that is how they are tested themselves.

mod attention;
mod bench;
mod command;
mod compile;
mod memory;
mod product;
mod step;

use anyhow::{Context as _, bail};
use bench::{Bench, Outcome};
use bigmac_runtime::Device;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A test: its name, and what runs.
type Case = (&'static str, fn(&Bench) -> anyhow::Result<Outcome>);

const CASES: &[Case] = &[
    ("product-variants", product::variants),
    ("attention-variants", attention::variants),
    ("step-text", step::text),
    ("step-pictures", step::pictures),
    ("step-drawings", step::drawings),
    ("memory-budget", memory::budget),
    ("memory-exhausted", memory::exhausted),
    ("kernel-broken", compile::broken),
    ("kernel-changed", compile::changed),
    ("command-train", command::train),
];

/// Tests of BigMac on a GPU.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-tests",
    after_help = "Example:\n  cargo run --release -p bigmac-gpu-tests -- --device cuda --only product-variants,memory-exhausted"
)]
struct Args {
    /// Where to run: cuda, cuda:N or replay.
    #[arg(long, default_value = "cuda")]
    device: Device,
    /// Names of tests; all if left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Sizes for a replay on any device: for a sanitizer, under which everything takes long.
    #[arg(long)]
    small: bool,
    /// Print the names of the tests, and run none.
    #[arg(long)]
    list: bool,
    /// The part of kernel-changed that runs in a process of its own, whose kernels are in that directory.
    #[arg(long, hide = true)]
    kernels_in: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    let names = || CASES.iter().map(|(name, _)| *name);
    if let Some(unknown) = args.only.iter().find(|only| !names().any(|name| name == **only)) {
        bail!("no test is called '{unknown}'; there are {}", names().collect::<Vec<_>>().join(", "));
    }
    let bench = Bench::open(args.device, args.small)?;
    if let Some(directory) = &args.kernels_in {
        return compile::in_directory(&bench, directory);
    }
    println!("{} ({})", bench.gpu.driver().name(), bench.gpu.driver().target());
    let (mut failed, mut skipped) = (Vec::new(), 0);
    for (name, test) in
        CASES.iter().filter(|(name, _)| args.only.is_empty() || args.only.iter().any(|o| o == name))
    {
        let began = Instant::now();
        let outcome = test(&bench).with_context(|| format!("{name} failed"));
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Passed(what)) => println!("passed  {name} ({seconds:.1} s): {what}"),
            Ok(Outcome::Skipped(why)) => {
                println!("SKIPPED {name}: {why}");
                skipped += 1;
            }
            Err(error) => {
                println!("FAILED  {name} ({seconds:.1} s): {error:#}");
                failed.push(*name);
            }
        }
    }
    println!("{} failed, {skipped} skipped", failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}
