//! `bigmac data inspect`: what a data set holds, and every error that `bigmac train` would stop at.

use crate::command::exit::BadInput;
use crate::command::picture_file::picture_format;
use crate::command::progress::bar;
use crate::command::{note, print};
use anyhow::Context;
use bigmac::config::{self, Config};
use bigmac::data::{
    HELDOUT, InspectOptions, Inspection, Layout, Place, Progress, SplitInspections, draw_grid, heldout_path,
    training_path, write_picture,
};
use bigmac::train::{Inputs, TrainError, Verify};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "Examples: check every line and picture, and show the first samples as one picture
  bigmac data inspect data/shapes --grid shapes.png
  bigmac data inspect my.toml --set data.max_tiles=4

What `bigmac train` would read is read as it would be: with a configuration, with its tokenizer, sizes and limits; with
a path, with those of the default configuration. Samples to train on come first; the unseen ones, where there are any,
are looked over too (`heldout` in the JSON). Exit code 2 when a line or picture cannot be used.";

/// Columns of a picture grid.
const GRID_COLUMNS: usize = 4;
/// Letters of the longest bar of a histogram.
const BAR_WIDTH: usize = 40;
/// Errors that are printed; JSON has all.
const ERRORS_SHOWN: usize = 20;

/// Tell what a data set holds, and every error in it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct InspectArgs {
    /// A data set's file, a folder that holds one, or a TOML configuration
    #[arg(value_name = "PATH|CONFIG.toml")]
    path: PathBuf,

    /// Any key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Read this split alone: train, heldout, or the SPLIT of a SPLIT.jsonl [default: train and heldout]
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,

    /// Image folder: where pictures are named from, `data.images` [default: as configured, else the file's folder]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// A tokenizer.json [default: as configured]; a special token of another name than the common ones is named with
    /// --set data.tokens.draw=NAME
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Side of the square the encoder sees, in pixels [default: as configured]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    image_size: Option<u16>,

    /// Tokens that one such square takes [default: as configured]
    #[arg(long, value_name = "N")]
    tokens_per_tile: Option<u16>,

    /// Most tiles that a large image is cut into; 1: images are resized [default: as configured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_tiles: Option<u16>,

    /// Report samples longer than this [default: as configured]
    #[arg(long, value_name = "N")]
    tokens_per_microbatch: Option<usize>,

    /// First samples to show
    #[arg(long, value_name = "N", default_value_t = 4)]
    first: usize,

    /// Write the first samples' pictures with their texts as one, a PNG or a JPEG file by its name
    #[arg(long, value_name = "FILE.png")]
    grid: Option<PathBuf>,

    /// Check only that pictures are there, without decoding them
    #[arg(long)]
    no_pictures: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    /// The configuration that is looked at.
    fn config(&self) -> Result<Config, config::ConfigError> {
        let is_config = self.path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        let mut config = config::read(is_config.then_some(self.path.as_path()), &self.settings)?;
        if !is_config {
            config.data.path = self.path.to_string_lossy().into_owned();
        }
        if let Some(images) = &self.images {
            config.data.images = images.to_string_lossy().into_owned();
        }
        if let Some(tokenizer) = &self.tokenizer {
            config.data.tokenizer = tokenizer.to_string_lossy().into_owned();
        }
        Ok(config)
    }

    /// What the flags put in place of what is configured.
    fn change(&self, layout: &mut Layout) {
        let put = |slot: &mut usize, flag: Option<u16>| *slot = flag.map_or(*slot, usize::from);
        put(&mut layout.image_size, self.image_size);
        put(&mut layout.tokens_per_tile, self.tokens_per_tile);
        put(&mut layout.max_tiles, self.max_tiles);
        layout.tokens_per_microbatch = self.tokens_per_microbatch.unwrap_or(layout.tokens_per_microbatch);
    }
}

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let grid =
        args.grid.as_deref().map(|path| Ok::<_, anyhow::Error>((path, picture_format("--grid", path)?)));
    let grid = grid.transpose()?;
    let config = args.config()?;
    let Inputs { shape, mut reading } = Inputs::of(&config)?;
    Inputs::start(&config, &shape, Verify::Weights)?;
    args.change(&mut reading.layout);
    let notes = reading.tokenizer.notes();
    notes.iter().for_each(|line| note(&format!("note: {line}")));

    let pictures = bar(0, "writing the shapes data set: {pos} pictures");
    let train = training_path(&config.data, &|count| pictures.inc(count as u64));
    pictures.finish_and_clear();
    let train = train?;
    let options = InspectOptions { decode_pictures: !args.no_pictures, shown: args.first };
    let bar = bar(0, "{bar:40} {pos}/{len} lines ({eta})");
    let progress = |progress| match progress {
        Progress::Total(lines) => bar.inc_length(lines as u64),
        Progress::Done(lines) => bar.inc(lines as u64),
    };
    let found = match args.split.as_deref() {
        None => SplitInspections::read(&config.data, &train, &reading, options, &progress),
        Some(split) => {
            let path = split_path(&config, &train, split)?;
            let train = Inspection::of(&path, split, &reading, options, &progress);
            SplitInspections { train, heldout: None }
        }
    };
    bar.finish_and_clear();
    if args.json {
        print(&format!("{}\n", as_json(&found, notes)?))?;
    } else {
        print(&found.all().map(report).collect::<Result<Vec<_>, _>>()?.join("\n"))?;
    }
    for warning in found.all().flat_map(|inspection| &inspection.warnings) {
        note(&format!("warning: {warning}"));
    }
    if let Some((path, format)) = grid {
        let cells = found.train.grid_cells(&reading.layout.limits)?;
        write_picture(path, &draw_grid(&cells, GRID_COLUMNS), format)?;
    }
    verdict(&found)
}

/// Where a split is, as a run would look for it.
fn split_path(config: &Config, train: &Path, split: &str) -> anyhow::Result<PathBuf> {
    if split != HELDOUT {
        return Ok(train.to_owned());
    }
    match heldout_path(&config.data, train)? {
        Some(path) => Ok(path),
        // Looking for the split there tells what the folder has in its place.
        None if train.is_dir() => Ok(train.to_owned()),
        None => Err(TrainError::NoHeldOut.into()),
    }
}

/// The training split's object, with the unseen samples' and what is to be known of the tokenizer.
fn as_json(found: &SplitInspections, notes: &[String]) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(found).context("could not write the inspection as JSON")?;
    value["notes"] = json!(notes);
    Ok(value)
}

/// An error where a run would refuse what was found.
fn verdict(found: &SplitInspections) -> anyhow::Result<()> {
    let refused: Vec<&Inspection> = found.all().filter(|split| split.refusal.is_some()).collect();
    let wrong: usize = found.all().map(|split| split.errors.len()).sum();
    let message = match refused.as_slice() {
        [] if wrong > 0 => {
            let left_out = format!(
                "{wrong} {} be used",
                if wrong == 1 { "sample that cannot" } else { "samples that cannot" }
            );
            note(&format!("warning: data.on_error = 'skip' leaves out {left_out}"));
            return Ok(());
        }
        [] => return Ok(()),
        // One thing that is wrong is said as it is.
        [one] if one.errors.len() == 1 => one.refusal.clone().unwrap_or_default(),
        refused => {
            let of = |one: &&Inspection| {
                let (wrong, file) = (one.errors.len(), one.file.display());
                format!("{wrong} of {} lines of {file}", one.samples + wrong)
            };
            format!("{} cannot be used", refused.iter().map(of).collect::<Vec<_>>().join(" and "))
        }
    };
    Err(BadInput(message).into())
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
    if found.unknown_tokens + found.dropped_characters > 0 {
        let (unknown, dropped) = (found.unknown_tokens, found.dropped_characters);
        writeln!(out, "  {unknown} unknown tokens, {dropped} characters without a token")?;
    }
    let most = found.histogram.iter().map(|bar| bar.samples).max().unwrap_or(0).max(1);
    if !found.histogram.is_empty() {
        writeln!(out, "\n  tokens       samples")?;
    }
    for bar in &found.histogram {
        let width = (bar.samples * BAR_WIDTH).div_ceil(most);
        writeln!(out, "  {:>4} - {:<4} {:>8}  {}", bar.from, bar.to, bar.samples, "#".repeat(width))?;
    }
    for shown in &found.first {
        let place = match &shown.place {
            Place::Line(line) => format!("line {line}"),
            // Rows and samples name their kind.
            place => place.to_string().trim_start().to_owned(),
        };
        writeln!(out, "\n  {place}: {} tokens, {} with loss", shown.tokens, shown.target_tokens)?;
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
