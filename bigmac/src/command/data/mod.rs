//! `bigmac data`: write the shapes set, or look a data set over.

mod inspect;

use super::print;
use super::progress::bar;
use bigmac::data::shapes::{Outcome, ShapesSpec, write_shapes};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

const SHAPES_EXAMPLE: &str = "Example: the set that `bigmac train` learns by default
  bigmac data shapes --out data/shapes

Writes train.jsonl, heldout.jsonl (descriptions that training never shows), their pictures, and dataset.json. The same
settings give the same bytes; a complete set is left as it is, an interrupted one is written again.";

/// Write or inspect a data set.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bigmac data shapes --out data/shapes\n  bigmac data inspect data/shapes")]
pub(super) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    Shapes(ShapesArgs),
    Inspect(Box<inspect::InspectArgs>),
}

/// Write the shapes set: pictures of coloured shapes with captions.
#[derive(Debug, Args)]
#[command(after_help = SHAPES_EXAMPLE)]
struct ShapesArgs {
    /// Folder to write to: missing, empty, or holding a shapes set
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Lines for training, half to be captioned and half to be drawn; two share a picture
    #[arg(long, value_name = "N", default_value_t = ShapesSpec::default().samples, value_parser = lines)]
    samples: usize,

    /// Descriptions for evaluation, each to be captioned and to be drawn
    #[arg(long, value_name = "N", default_value_t = ShapesSpec::default().heldout, value_parser = lines)]
    heldout: usize,

    /// Seed of order and jitter
    #[arg(long, value_name = "S", default_value_t = ShapesSpec::default().seed)]
    seed: u64,

    /// Replace a set of other settings in DIR
    #[arg(long)]
    overwrite: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The most lines that are written.
const MOST_LINES: usize = 1_000_000;

fn lines(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= MOST_LINES);
    count.ok_or_else(|| format!("'{text}' is not a whole number from 0 to {MOST_LINES}"))
}

pub(super) fn run(args: DataArgs) -> anyhow::Result<()> {
    match &args.command {
        DataCommand::Shapes(args) => run_shapes(args),
        DataCommand::Inspect(args) => inspect::run(args),
    }
}

fn run_shapes(args: &ShapesArgs) -> anyhow::Result<()> {
    let spec = ShapesSpec { samples: args.samples, heldout: args.heldout, seed: args.seed };
    let bar = bar(spec.pictures() as u64, "{bar:40} {pos}/{len} pictures ({eta})");
    let outcome = write_shapes(&args.out, &spec, args.overwrite, &|done| bar.inc(done as u64));
    bar.finish_and_clear();
    let outcome = outcome?;
    let (word, done) = match outcome {
        Outcome::Written => ("written", "wrote"),
        Outcome::Restarted => ("restarted", "wrote again, as an earlier write had been interrupted:"),
        Outcome::Reused => ("reused", "found complete, and left as it is:"),
    };
    let (train, heldout, pictures) = (spec.samples, 2 * spec.heldout, spec.pictures());
    if args.json {
        let value = json!({"out": args.out.display().to_string(), "outcome": word, "train": train, "heldout": heldout, "pictures": pictures,
            "seed": spec.seed});
        return print(&format!("{value}\n"));
    }
    let folder = args.out.display();
    print(&format!(
        "{folder}: {done} {train} training lines, {heldout} held-out lines, {pictures} pictures\n"
    ))
}
