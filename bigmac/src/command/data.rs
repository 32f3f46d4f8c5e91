//! `bigmac data`: write the shapes set, or look a data set over.

use super::print;
use super::progress::bar;
use anyhow::bail;
use bigmac::data::shapes::{Outcome, ShapesSpec, write_shapes};
use bigmac::data::{
    InspectOptions, Inspection, Layout, PictureLimits, Progress, ReadOptions, Tokenizer, draw_grid, inspect,
    write_png,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

const SHAPES_EXAMPLE: &str = "Example: the set that `bigmac train` learns by default
  bigmac data shapes --out data/shapes

Writes train.jsonl, heldout.jsonl (descriptions that training never shows), their pictures, and dataset.json. The same
settings give the same bytes; a complete set is left as it is, an interrupted one is written again.";

const INSPECT_EXAMPLE: &str =
    "Example: check every line and picture, and show the first samples as one picture
  bigmac data inspect data/shapes --grid shapes.png

Exit code 1 when a line or picture cannot be used.";

/// Columns of a picture grid.
const GRID_COLUMNS: usize = 4;
/// Letters of the longest bar of a histogram.
const BAR_WIDTH: usize = 40;
/// Errors that are printed; JSON has all.
const ERRORS_SHOWN: usize = 20;

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
    Inspect(InspectArgs),
}

/// Write the shapes set: pictures of coloured shapes with captions.
#[derive(Debug, Args)]
#[command(after_help = SHAPES_EXAMPLE)]
struct ShapesArgs {
    /// Folder to write to: missing, empty, or holding a shapes set
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Lines for training, half to be captioned and half to be drawn; two share a picture
    #[arg(long, value_name = "N", default_value_t = ShapesSpec::default().samples)]
    samples: usize,

    /// Descriptions for evaluation, each to be captioned and to be drawn
    #[arg(long, value_name = "N", default_value_t = ShapesSpec::default().heldout)]
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

/// Tell what a data set holds, and every error in it.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLE)]
struct InspectArgs {
    /// A JSONL or LLaVA file, or a folder that holds one
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// In a folder, which of its files: SPLIT.jsonl
    #[arg(long, value_name = "SPLIT", default_value = "train")]
    split: String,

    /// A tokenizer.json [default: bytes]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Side of the square the encoder sees, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    image_size: u16,

    /// Tokens that one such square takes
    #[arg(long, value_name = "N", default_value_t = 16)]
    tokens_per_tile: u16,

    /// Most tiles that a large image is cut into; 1: images are resized
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    max_tiles: u16,

    /// Report samples longer than this [default: no limit]
    #[arg(long, value_name = "N")]
    tokens_per_microbatch: Option<usize>,

    /// First samples to show
    #[arg(long, value_name = "N", default_value_t = 4)]
    first: usize,

    /// Write the first samples' pictures with their texts as one PNG
    #[arg(long, value_name = "FILE.png")]
    grid: Option<PathBuf>,

    /// Check only that pictures are there, without decoding them
    #[arg(long)]
    no_pictures: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: DataArgs) -> anyhow::Result<()> {
    match &args.command {
        DataCommand::Shapes(args) => run_shapes(args),
        DataCommand::Inspect(args) => run_inspect(args),
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
        let value = json!({"out": args.out, "outcome": word, "train": train, "heldout": heldout, "pictures": pictures,
            "seed": spec.seed});
        return print(&format!("{value}\n"));
    }
    let folder = args.out.display();
    print(&format!(
        "{folder}: {done} {train} training lines, {heldout} held-out lines, {pictures} pictures\n"
    ))
}

fn run_inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let tokenizer = match &args.tokenizer {
        Some(path) => Tokenizer::from_file(path)?,
        None => Tokenizer::bytes(),
    };
    let layout = Layout {
        image_size: args.image_size.into(),
        tokens_per_tile: args.tokens_per_tile.into(),
        max_tiles: args.max_tiles.into(),
        draw_size: args.image_size.into(),
        tokens_per_microbatch: args.tokens_per_microbatch.unwrap_or(usize::MAX),
        limits: PictureLimits::default(),
    };
    let reading = ReadOptions { tokenizer, layout, images: None, skip: false };
    let options = InspectOptions { decode_pictures: !args.no_pictures, shown: args.first };
    let bar = bar(0, "{bar:40} {pos}/{len} lines ({eta})");
    let found = inspect(&args.path, &args.split, &reading, options, &|progress| match progress {
        Progress::Total(lines) => bar.set_length(lines as u64),
        Progress::Done(lines) => bar.inc(lines as u64),
    });
    bar.finish_and_clear();
    let found = found?;
    if let Some(path) = &args.grid {
        write_png(path, &draw_grid(&found.grid_cells(&layout.limits)?, GRID_COLUMNS))?;
    }
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&found)?))?;
    } else {
        print(&report(&found)?)?;
    }
    if !found.errors.is_empty() {
        let lines = found.samples + found.errors.len();
        bail!("{} of {lines} lines of {} cannot be used", found.errors.len(), found.file.display());
    }
    Ok(())
}

fn report(found: &Inspection) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{}", found.file.display())?;
    writeln!(
        out,
        "  {} samples, {} images ({} tiles), {} pictures to draw",
        found.samples, found.images, found.tiles, found.draws
    )?;
    writeln!(
        out,
        "  {} tokens ({} to {} a sample), {} with loss",
        found.tokens, found.shortest, found.longest, found.target_tokens
    )?;
    let most = found.histogram.iter().map(|bar| bar.samples).max().unwrap_or(0).max(1);
    if !found.histogram.is_empty() {
        writeln!(out, "\n  tokens       samples")?;
    }
    for bar in &found.histogram {
        let width = (bar.samples * BAR_WIDTH).div_ceil(most);
        writeln!(out, "  {:>4} - {:<4} {:>8}  {}", bar.from, bar.to, bar.samples, "#".repeat(width))?;
    }
    for shown in &found.first {
        writeln!(out, "\n  line {}: {} tokens, {} with loss", shown.line, shown.tokens, shown.target_tokens)?;
        writeln!(out, "    {}", shown.text.replace('\n', "\n    "))?;
        for picture in &shown.pictures {
            writeln!(out, "    {picture}")?;
        }
    }
    if !found.errors.is_empty() {
        writeln!(out, "\n  errors")?;
    }
    for error in found.errors.iter().take(ERRORS_SHOWN) {
        writeln!(out, "    {error}")?;
    }
    if found.errors.len() > ERRORS_SHOWN {
        writeln!(out, "    ... and {} more; --json lists all", found.errors.len() - ERRORS_SHOWN)?;
    }
    Ok(out)
}
