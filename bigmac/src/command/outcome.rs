//! What a schedule does to a step: built, validated, on the clock.

use anyhow::Context;
use bigmac_runtime::fs::{read_text, write_atomically};
use bigmac_schedule::files::{Form, fits, placement_of};
use bigmac_schedule::memory::peak_microbatches;
use bigmac_schedule::render::{Format, Timeline};
use bigmac_schedule::validate;
use bigmac_schedule::work_bound;
use bigmac_schedule::{ModuleKind, Options, PerModule, Schedule, Table, Workload, ideal_over, ideal_time};
use bigmac_schedule::{Simulation, simulate};
use serde_json::{Value, json};
use std::path::Path;

/// A schedule and what it does.
pub(super) struct Outcome {
    /// The schedule's, or the file's.
    pub name: String,
    /// The order of the LLM's chunks under it; none for a table from a file.
    pub llm: Option<&'static str>,
    /// The step as the schedule runs it, which may be on more ranks.
    pub workload: Workload,
    pub table: Table,
    pub simulation: Simulation,
    pub ideal: f64,
    pub bound: f64,
    /// Per rank, in microbatches.
    pub peaks: Vec<PerModule<f64>>,
}

impl Outcome {
    /// Runs a step through a schedule on the clock.
    pub(super) fn of(
        schedule: &'static Schedule,
        shape: &Workload,
        options: &Options,
    ) -> anyhow::Result<Outcome> {
        let name = schedule.name();
        let workload = schedule.workload(shape, options.llm);
        let table = schedule.build(&workload, options)?;
        validate(&table, &workload, &options.limits).with_context(|| format!("schedule '{name}'"))?;
        // A chain's ideal is that of the same step on the ranks that were asked for.
        let ideal = ideal_time(if schedule.is_whole() { shape } else { &workload }, options)?;
        Outcome::new(name.to_owned(), Some(options.llm.name()), workload, table, ideal)
    }

    /// Runs the table that a file holds on the clock, with the LLM's chunks where the file has them. Its ideal is that
    /// of the order that it has the LLM's ops in.
    pub(super) fn read(path: &Path, workload: Workload, options: &Options) -> anyhow::Result<Outcome> {
        let name = path.display().to_string();
        let content = read_text(path).with_context(|| format!("could not read {name}"))?;
        let table = Form::of(path).read(&content).with_context(|| format!("{name} holds no schedule"))?;
        fits(&table, &workload).with_context(|| format!("{name} is for another step"))?;
        let workload = workload.with_placement(placement_of(&table));
        validate(&table, &workload, &options.limits).with_context(|| format!("the schedule of {name}"))?;
        let ideal = ideal_over(&table, &workload, options.group)?;
        Outcome::new(name, None, workload, table, ideal)
    }

    fn new(
        name: String,
        llm: Option<&'static str>,
        workload: Workload,
        table: Table,
        ideal: f64,
    ) -> anyhow::Result<Outcome> {
        let simulation = simulate(&table, &workload)?;
        let bound = work_bound(&workload);
        let peaks = peak_microbatches(&table, &workload);
        Ok(Outcome { name, llm, workload, table, simulation, ideal, bound, peaks })
    }

    pub(super) fn timeline(&self, title: &str) -> Timeline {
        Timeline::simulated(title, &self.table, &self.workload, &self.simulation)
    }

    /// The largest peak over all ranks, in microbatches.
    pub(super) fn peak(&self, kind: ModuleKind) -> f64 {
        self.peaks.iter().map(|peak| peak[kind]).fold(0.0, f64::max)
    }

    /// What `simulate --json` says of it.
    pub(super) fn json(&self) -> Value {
        let ranks = self.simulation.busy.iter().zip(&self.peaks);
        let ranks: Vec<Value> = ranks.map(|(busy, peak)| json!({ "busy": busy, "peak": peak })).collect();
        json!({
            "schedule": self.name,
            "llm": self.llm,
            "time": self.simulation.time(),
            "ideal": self.ideal,
            "bound": self.bound,
            "bubble_rate": self.simulation.bubble_rate(),
            "ranks": ranks,
        })
    }
}

/// Draws timelines into a file, in the format that its name says.
pub(super) fn draw(path: &Path, format: Format, timelines: &[Timeline]) -> anyhow::Result<()> {
    write(path, &format.draw(timelines))
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    write_atomically(path, |file| file.write_all(text.as_bytes())).context("could not write a file")
}
