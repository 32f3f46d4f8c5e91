//! Subcommands, one file each. Adding one is that file and a line in [`Command`] and its `run`.

mod caption;
mod compare;
mod data;
mod doctor;
mod eval;
mod exit;
mod imagine;
mod jitter;
mod launch;
mod load;
mod outcome;
mod picture_file;
mod plan;
mod profile;
mod progress;
mod readable;
mod shape;
mod simulate;
mod stop;
mod suggest;
mod table;
mod train;

use anyhow::Context;
use bigmac::job;
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

const EXAMPLE: &str = "Example: train the embedded default, then draw with what it has learned
  bigmac train
  bigmac imagine runs/shapes \"small red circle top left\" --out picture.png";

/// Train multimodal LLMs with encoder and generator nested in the LLM pipeline.
#[derive(Debug, Parser)]
#[command(name = "bigmac", version, max_term_width = 110, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Launch(launch::LaunchArgs),
    Eval(eval::EvalArgs),
    Caption(caption::CaptionArgs),
    Imagine(imagine::ImagineArgs),
    Data(data::DataArgs),
    Simulate(Box<simulate::SimulateArgs>),
    Compare(Box<compare::CompareArgs>),
    Profile(profile::ProfileArgs),
    Plan(Box<plan::PlanArgs>),
    Doctor(doctor::DoctorArgs),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Train(args) => train::run(*args),
            Command::Launch(args) => launch::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Caption(args) => caption::run(args),
            Command::Imagine(args) => imagine::run(args),
            Command::Data(args) => data::run(args),
            Command::Simulate(args) => simulate::run(*args),
            Command::Compare(args) => compare::run(*args),
            Command::Profile(args) => profile::run(args),
            Command::Plan(args) => plan::run(*args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}

/// Runs the command line that the process was started with. Exit code 0 only on success; errors are one paragraph.
pub fn run() -> ExitCode {
    report_file_size_limits();
    let done = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        // Help and version are asked for, and printed like any other result.
        Err(said) if !said.use_stderr() => print(&said.render().to_string()),
        Err(wrong) => {
            // It repeats what was given. Where a subcommand is missing it is the help alone.
            let said = wrong.render().to_string();
            let missing = if said.starts_with("error:") { "" } else { "error: expected a subcommand\n\n" };
            note(readable::readable(&format!("{missing}{said}")).trim_end());
            return ExitCode::from(exit::BAD_INPUT);
        }
    };
    match done {
        Ok(()) => job::exit(0),
        Err(error) => {
            note(&format!("error: {}", readable::readable(&paragraph(&error))));
            job::exit(exit::code(&error))
        }
    }
}

/// An error and its causes. Most errors here say their cause themselves: it is not said twice.
pub(crate) fn paragraph(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// A write beyond a file size limit (`ulimit -f`) is to be an error that names the file; by default a signal would end
/// the process without a word.
fn report_file_size_limits() {
    // SAFETY: no handler runs: the signal is ignored, and nothing in this process waits for it.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Writes a line to standard error. Where its reader is gone, the work goes on.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes to standard output. A reader that has closed it, as `head` does, has seen enough: that is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("could not write to standard output"),
    }
}
