//! `bigmac compare`: one step through every schedule, side by side.

mod typed;

use std::path::PathBuf;

use bigmac::schedule::{LlmSchedule, Schedule, registry};
use clap::Args;

use super::shape::{Shape, llm_help};

const EXAMPLE: &str = "Examples: every schedule on typed costs; on microbatches with unequal numbers of images
  bigmac compare --ranks 4 --microbatches 16 --cost F=1,B=1,W=1,Ef=2,Eb=4
  bigmac compare --ranks 8 --microbatches 32 --cost F=1,B=1,W=1,Ef=2,Eb=4 --items 16 --uneven 1 --llm 1f1b,zb-h1

Output: a line per schedule and LLM order. x nested is the time over that of nested, x ideal over the LLM's own time plus
all slots at their largest shares, x bound over the time that no schedule can beat. A schedule with ranks of its own for
encoder and generator uses more ranks, so look at rank-time, which is time x ranks. Activation peaks are those of the
fullest rank, in microbatches, or in bytes where --saved says what a microbatch takes. docs/compare-schedules.md says more.";

/// Compare schedules on one step: time, bubble, ranks, activations.
///
/// A schedule that does not exist for the step is listed with the reason.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Compare {
    /// Schedules of the whole step, comma-separated [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    schedule: Vec<String>,

    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "1f1b", help = llm_help())]
    llm: Vec<String>,

    #[command(flatten)]
    shape: Shape,

    /// Draw all timelines into a file that ends in .html, .svg or .json (Perfetto)
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.typed()
    }

    /// The schedules asked for, without one twice.
    fn schedules(&self) -> anyhow::Result<Vec<&'static dyn Schedule>> {
        if self.schedule.is_empty() {
            return Ok(registry::SCHEDULES.iter().copied().filter(|schedule| schedule.is_whole()).collect());
        }
        Ok(unique(&self.schedule).map(|name| registry::schedule(name)).collect::<Result<_, _>>()?)
    }

    /// The orders of the LLM's chunks asked for, without one twice.
    fn llms(&self) -> anyhow::Result<Vec<&'static dyn LlmSchedule>> {
        Ok(unique(&self.llm).map(|name| registry::llm_schedule(name)).collect::<Result<_, _>>()?)
    }
}

fn unique(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().enumerate().filter(|(i, name)| !names[..*i].contains(name)).map(|(_, name)| name)
}
