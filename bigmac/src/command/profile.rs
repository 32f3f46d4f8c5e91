//! `bigmac profile`: what this machine takes for every kind of op of a configuration.

use super::shape::rounds;
use super::table::{heads, line};
use super::{print, progress};
use anyhow::Context;
use bigmac::config;
use bigmac::cost::Spread;
use bigmac::measure::{Rounds, take};
use bigmac::profile::Profile;
use bigmac::train::Session;
use clap::Args;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Rounds that are dropped, as caches and allocators are still cold.
pub(super) const WARMUP: usize = 2;

const EXAMPLE: &str = "Example: measure, then compare all schedules on what was measured, and run them for real
  bigmac profile configs/shapes.toml --out shapes.profile.toml
  bigmac compare configs/shapes.toml --profile shapes.profile.toml --measure

Run it on an idle machine: what else runs is measured too. The file holds, per module, chunk and phase, the median of a
unit's seconds with quartiles and extremes, and how they grow with the unit's size; and the time of a transfer, of the
reduction of gradients and of the optimizer.";

/// Measure the cost of every kind of op of a configuration on this machine, with all ranks busy, and write it as TOML.
///
/// Real steps run through `nested`, on an order of the LLM's chunks with whole backwards and on one with split
/// backwards, in turns. Weights are random and stay as they are.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct ProfileArgs {
    /// TOML file over the defaults
    config: Option<PathBuf>,
    /// Where the profile is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Ranks, each a thread (or several) of this process
    #[arg(long, value_name = "P")]
    ranks: Option<usize>,
    /// Threads of each rank
    #[arg(long, value_name = "T")]
    threads: Option<usize>,
    /// Different steps of the data: microbatches of many sizes
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = rounds)]
    steps: usize,
    /// How often each step runs under each schedule
    #[arg(long, value_name = "R", default_value_t = 10, value_parser = rounds)]
    rounds: usize,
    /// Any key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: ProfileArgs) -> anyhow::Result<()> {
    let flags = [("ranks", args.ranks), ("threads", args.threads)]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let settings: Vec<String> = flags
        .map(|(key, value)| format!("pipeline.{key}={value}"))
        .chain(args.settings.iter().cloned())
        .collect();
    let config = config::read(args.config.as_deref(), &settings)?;
    let session = open(&config, args.json)?;
    let profile = measure(&session, args.steps as u64, args.rounds, args.json)?;
    profile.write(&args.out)?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&profile)?));
    }
    print(&format!("{}\nwritten to {}\n", report(&profile), args.out.display()))
}

/// The session of a configuration; pictures that are written first are shown as they come.
pub(super) fn open(config: &config::Config, quiet: bool) -> anyhow::Result<Session> {
    let bar = bar(quiet, "writing pictures");
    let session = Session::open(config, &|n| bar.set_position(n as u64));
    bar.finish_and_clear();
    Ok(session?)
}

/// Takes a profile of the first steps.
pub(super) fn measure(session: &Session, steps: u64, rounds: usize, quiet: bool) -> anyhow::Result<Profile> {
    let bar = bar(quiet, "rounds of the profile");
    let rounds = Rounds { warmup: WARMUP, kept: rounds };
    let profile = take(session, steps, rounds, &|| bar.inc(1));
    bar.finish_and_clear();
    profile.context("the profile could not be taken")
}

/// A count with its name on a terminal; nothing elsewhere.
pub(super) fn bar(quiet: bool, what: &'static str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    progress::bar(0, "{spinner} {pos} {msg} ({elapsed})").with_message(what)
}

const UNIT_WIDTHS: [isize; 9] = [-10, 6, -17, 8, 10, 12, 12, 12, 12];

fn report(profile: &Profile) -> String {
    let taken = &profile.taken;
    let mut text = format!(
        "{} ranks of {} threads on {} ({} processors); {} in turns, {} steps, {} rounds each\n\n",
        taken.ranks,
        taken.threads,
        taken.processor,
        taken.processors,
        taken.schedules.join(" and "),
        taken.steps,
        taken.rounds
    );
    text += &heads(UNIT_WIDTHS, "module|chunk| phase|units|gop|ms|lower|upper|ms / gop");
    let ms = |seconds: f64| format!("{:.4}", 1e3 * seconds);
    for unit in &profile.unit {
        let ((module, chunk, phase), seconds) = (unit.key(), unit.seconds);
        let cells = [
            module.name().to_owned(),
            chunk.to_string(),
            format!(" {}", phase.name()),
            unit.count.to_string(),
            format!("{:.5}", unit.gop),
            ms(seconds.median),
            ms(seconds.lower),
            ms(seconds.upper),
            ms(unit.per_gop),
        ];
        text += &line(UNIT_WIDTHS, cells);
    }
    let around = &profile.around;
    for (what, seconds) in [
        ("a value's way to a rank that waits", around.latency),
        ("hidden states' way", around.hidden),
        ("reduction of gradients", Some(around.reduce)),
        ("optimizer", Some(around.optimizer)),
    ] {
        let Some(Spread { median, lower, upper, .. }) = seconds else { continue };
        text += &line([-49, 13, 12, 12], [what.to_owned(), ms(median), ms(lower), ms(upper)]);
    }
    text
}
