//! The simulated time of every schedule beside the work bound, as a chart.

use anyhow::{Context, Result};
use bigmac_benches::chart::{Bar, Emphasis, Heading, bars};
use bigmac_schedule::{
    Options, PerModule, UniformCosts, Workload, memory::peak_microbatches, registry, simulate, work_bound,
};
use clap::Parser;
use std::path::PathBuf;

/// Draws the ranks' total time of every schedule of one step, beside the least that any could take.
///
/// The step is that of README: 8 ranks, 32 microbatches, LLM stages of F = B = W = 1, an encoder of 2 forward and 4
/// backward.
///
/// Example: cargo run --release -p bigmac-benches --bin times -- docs/times.svg
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// The file to write.
    out: PathBuf,
}

const RANKS: usize = 8;
const MICROBATCHES: usize = 32;

fn main() -> Result<()> {
    let args = Args::parse();
    let costs = UniformCosts {
        forward: 1.0,
        backward_input: 1.0,
        backward_weight: 1.0,
        encoder_forward: 2.0,
        encoder_backward: 4.0,
        ..UniformCosts::default()
    };
    let workload = Workload::uniform(RANKS, 1, MICROBATCHES, RANKS, costs, 0.0)?;
    let mut rows = Vec::new();
    for schedule in registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()) {
        let workload = schedule.workload(&workload, Options::default().llm);
        let table = schedule.build(&workload, &Options::default())?;
        let time = simulate(&table, &workload)?.time();
        let peaks = peak_microbatches(&table, &workload);
        let most = |of: fn(&PerModule<f64>) -> f64| peaks.iter().map(of).fold(0.0, f64::max);
        let emphasis = if schedule.name().starts_with("nested") { Emphasis::Strong } else { Emphasis::Weak };
        let ranks = table.ranks.len();
        let more = if ranks == RANKS { String::new() } else { format!(", {ranks} ranks") };
        let note = format!("encoder {:.1}, LLM {:.0}{more}", most(|p| p.encoder), most(|p| p.llm));
        let value = time * ranks as f64;
        rows.push(Bar { name: schedule.name().into(), value, note, emphasis });
    }
    rows.sort_by(|a, b| b.value.total_cmp(&a.value));
    let heading = Heading {
        title: "Ranks x time of one step, simulated".into(),
        subtitle: format!(
            "{RANKS} ranks, {MICROBATCHES} microbatches; in grey text the activations of the fullest rank, in microbatches"
        ),
    };
    let bound = work_bound(&workload) * RANKS as f64;
    std::fs::write(&args.out, bars(&heading, &rows, (bound, "work bound")))
        .with_context(|| format!("cannot write {}", args.out.display()))
}
