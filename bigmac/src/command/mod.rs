//! Subcommands, one file each. Adding one is that file and a line in [`Command`] and its `run`.

mod data;
mod doctor;
mod simulate;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Train multimodal LLMs with encoder and generator nested in the LLM pipeline.
#[derive(Debug, Parser)]
#[command(name = "bigmac", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Doctor),
    Data(data::DataArgs),
    Simulate(Box<simulate::Simulate>),
}

impl Command {
    fn run(&self) -> anyhow::Result<()> {
        match self {
            Command::Doctor(command) => command.run(),
            Command::Data(args) => data::run(args),
            Command::Simulate(command) => command.run(),
        }
    }
}

/// Runs the command line that the process was started with. Exit code 0 only on success; errors are one paragraph.
pub fn run() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. A reader that has closed it, as `head` does, has seen enough: that is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("could not write to standard output"),
    }
}
