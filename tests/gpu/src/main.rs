//! Tests of everything on a GPU that a replay on the CPU cannot show, or shows at small sizes only. `docs/gpu.md`
//! says how to run them.
//!
//! They run on the device replay as well, at sizes that it can do: that is how they are tested themselves.

mod attention;
mod bench;
mod cases;
mod command;
mod compile;
mod each;
mod fill_cache;
mod memory;
mod product;
mod step;

use anyhow::{Context as _, bail};
use bench::{Bench, Outcome};
use bigmac_runtime::Device;
use cases::Case;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Tests of BigMac on a GPU.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-tests",
    after_help = "Example:\n  cargo run --release -p bigmac-gpu-tests -- --device cuda --each --only product,memory-exhausted"
)]
struct Args {
    /// Where to run: cuda, cuda:N or replay.
    #[arg(long, default_value = "cuda")]
    device: Device,
    /// Names of tests, or families of them (what comes before the first '-'); all if left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Sizes for a replay on any device: for a sanitizer, under which everything takes long.
    #[arg(long)]
    small: bool,
    /// Print the names of the tests, and run none.
    #[arg(long)]
    list: bool,
    /// Run each test in a process of its own: a fault or a hang costs that test alone.
    #[arg(long)]
    each: bool,
    /// With --each: the seconds that a test may take before it is killed.
    #[arg(long, default_value = "60", value_parser = seconds, requires = "each")]
    limit: Duration,
    /// Compile every kernel for an architecture such as sm_90a into the kernel cache, on all processors, and run
    /// nothing. Needs NVRTC and no GPU.
    #[arg(long, value_name = "ARCHITECTURE", conflicts_with_all = ["list", "each"])]
    compile: Option<String>,
    /// The part of kernel-changed that runs in a process of its own, whose kernels are in that directory.
    #[arg(long, hide = true)]
    kernels_in: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|limit| !limit.is_zero()).ok_or_else(|| "expected seconds above 0".into())
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
    if let Some(architecture) = &args.compile {
        return fill_cache::compile(architecture);
    }
    let selected = cases::select(&args.only)?;
    if args.list {
        selected.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if args.each {
        return each::run(&selected, args.device, args.small, args.limit);
    }
    let bench = Bench::open(args.device, args.small)?;
    if let Some(directory) = &args.kernels_in {
        return compile::in_directory(&bench, directory);
    }
    println!("{} ({})", bench.gpu.driver().name(), bench.gpu.driver().target());
    in_turn(&bench, &selected)
}

/// Runs the tests one after the other in this process.
fn in_turn(bench: &Bench, selected: &[Case]) -> anyhow::Result<()> {
    let (mut failed, mut skipped) = (Vec::new(), 0);
    for case in selected {
        let began = Instant::now();
        let outcome = (case.test)(bench).with_context(|| format!("{} failed", case.name));
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Passed(what)) => println!("passed  {} ({seconds:.1} s): {what}", case.name),
            Ok(Outcome::Skipped(why)) => {
                println!("SKIPPED {}: {why}", case.name);
                skipped += 1;
            }
            Err(error) => {
                println!("FAILED  {} ({seconds:.1} s): {error:#}", case.name);
                failed.push(case.name.as_str());
            }
        }
    }
    println!("{} failed, {skipped} skipped", failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}
