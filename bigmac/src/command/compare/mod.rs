//! `bigmac compare`: one step through every schedule, side by side.

mod measured;
mod typed;

use super::shape::{Shape, llm_help};
use crate::command::shape::rounds;
use bigmac_schedule::{LlmSchedule, Schedule, registry};
use clap::Args;
use std::path::PathBuf;

/// What everything is compared with.
const REFERENCE: &str = "nested";

const EXAMPLE: &str = "Examples: every schedule on typed costs; on microbatches with unequal numbers of images; run for real
  bigmac compare --ranks 4 --microbatches 16 --cost F=1,B=1,W=1,Ef=2,Eb=4
  bigmac compare --ranks 8 --microbatches 32 --cost F=1,B=1,W=1,Ef=2,Eb=4 --items 16 --uneven 1 --llm 1f1b,zb-h1
  bigmac profile configs/shapes.toml --out shapes.profile.toml
  bigmac compare configs/shapes.toml --profile shapes.profile.toml --measure

Output: a line per schedule and LLM order. x nested is the time over that of nested, x ideal over the LLM's own time plus
all slots at their largest shares, x bound over the time that no schedule can beat. A schedule with ranks of its own for
encoder and generator uses more ranks, so look at rank-time, which is time x ranks. Activation peaks are those of the
fullest rank, in microbatches, or in bytes where --saved says what a microbatch takes.
With a configuration, costs are measured ones, in seconds, and --measure runs every schedule in turns and shows what it
took beside what was simulated: the pipeline's time, from a barrier until the last op ends, without the reduction of
gradients and the optimizer, which are the same under every schedule. docs/compare-schedules.md says more.";

/// Compare schedules on one step: time, bubble, ranks, activations.
///
/// A schedule that does not exist for the step is listed with the reason.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CompareArgs {
    /// Compare on a step of this configuration, on its ranks, with measured costs
    #[arg(conflicts_with = "Shape")]
    config: Option<PathBuf>,

    /// Costs that `bigmac profile` measured [default with a configuration: measure them first]
    #[arg(long, value_name = "FILE", conflicts_with = "Shape")]
    profile: Option<PathBuf>,

    /// Run every schedule for real, in turns
    #[arg(long, conflicts_with = "Shape")]
    measure: bool,

    /// Run one op of one rank at a time, and put the times that they took on the ranks' clocks: what P ranks would take
    /// that do not share a machine, measured on one
    #[arg(long, requires = "measure")]
    one_at_a_time: bool,

    /// Rounds of --measure; in each every schedule runs once
    #[arg(long, value_name = "R", default_value_t = 10, requires = "measure", value_parser = rounds)]
    rounds: usize,

    /// Which step of the configuration's data
    #[arg(long, value_name = "STEP", default_value_t = 0, conflicts_with = "Shape")]
    step: u64,

    /// Any key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "Shape")]
    settings: Vec<String>,

    /// Schedules of the whole step, comma-separated [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    schedule: Vec<String>,

    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help = llms_help())]
    llm: Vec<String>,

    /// Ranks, which are the LLM's pipeline stages [default: 4, or the configuration's]
    #[arg(long, value_name = "P")]
    ranks: Option<usize>,

    #[command(flatten)]
    shape: Shape,

    /// Draw all timelines into a file that ends in .html, .svg or .json (Perfetto)
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: CompareArgs) -> anyhow::Result<()> {
    let with_configuration = args.config.is_some() || args.profile.is_some() || args.measure;
    if with_configuration || !args.settings.is_empty() { measured::run(&args) } else { typed::run(&args) }
}

impl CompareArgs {
    /// The schedules asked for, without one twice.
    fn schedules(&self) -> anyhow::Result<Vec<&'static Schedule>> {
        if self.schedule.is_empty() {
            return Ok(registry::SCHEDULES.iter().copied().filter(|schedule| schedule.is_whole()).collect());
        }
        Ok(unique(&self.schedule).map(|name| registry::schedule(name)).collect::<Result<_, _>>()?)
    }

    /// The orders of the LLM's chunks asked for, without one twice.
    fn llms(&self, default: &str) -> anyhow::Result<Vec<&'static LlmSchedule>> {
        if self.llm.is_empty() {
            return Ok(vec![registry::llm_schedule(default)?]);
        }
        Ok(unique(&self.llm).map(|name| registry::llm_schedule(name)).collect::<Result<_, _>>()?)
    }
}

fn unique(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().enumerate().filter(|(i, name)| !names[..*i].contains(name)).map(|(_, name)| name)
}

fn llms_help() -> String {
    format!("{}\n[default: 1f1b, or the configuration's]", llm_help())
}
