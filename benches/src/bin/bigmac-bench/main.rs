//! Benchmarks of parts of BigMac, one subcommand each. Adding one is a module and a line in [`Command`] and its `run`.

mod kernels;
mod summary;

use clap::{Parser, Subcommand};

/// Benchmarks of parts of BigMac.
#[derive(Debug, Parser)]
#[command(name = "bigmac-bench", version, max_term_width = 110)]
struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Kernels(kernels::Kernels),
    Summary(summary::Summary),
}

fn main() -> anyhow::Result<()> {
    match Bench::parse().command {
        Command::Kernels(kernels) => kernels.run(),
        Command::Summary(summary) => summary.run(),
    }
}
