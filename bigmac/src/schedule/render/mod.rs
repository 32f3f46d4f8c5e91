//! Pictures of what ran when: SVG and HTML to look at, Perfetto (Chrome) traces to dig through.
//!
//! A [`Timeline`] is drawn the same way whether its times come from a simulation or from a measured step. Several of
//! them share one time axis, so that schedules can be compared by eye.

mod html;
mod palette;
mod perfetto;
mod svg;

use std::path::Path;

use thiserror::Error;

use super::memory::PerModule;
use super::simulate::Simulation;
use super::table::{Module, ModuleKind, Op, Phase, Piece, Table};
use super::workload::Workload;

pub use html::html;
pub use perfetto::perfetto;
pub use svg::svg;

/// What 1.0 on a timeline is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// The unit of the costs, whatever it was. In traces, which know only seconds, it stands as a millisecond.
    #[default]
    Cost,
    /// A second.
    Seconds,
}

/// An op on the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What ran.
    pub op: Op,
    /// When it started.
    pub start: f64,
    /// When it ended.
    pub end: f64,
}

/// What every rank ran when, and what it kept alive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Heading, such as the schedule's name.
    pub title: String,
    /// A line beside it, such as its time.
    pub note: String,
    /// What times are in.
    pub unit: TimeUnit,
    /// Per rank, in order of time.
    pub ranks: Vec<Vec<Bar>>,
    /// Per rank: the moments at which live activations change and how many microbatches of each module are live from
    /// then on. May be empty: then no memory is drawn.
    pub memory: Vec<Vec<(f64, PerModule<f64>)>>,
}

impl Timeline {
    /// The timeline of a simulated table.
    pub fn simulated(title: &str, table: &Table, workload: &Workload, simulation: &Simulation) -> Timeline {
        let ranks = table.ranks.iter().zip(&simulation.spans).map(|(ops, spans)| {
            let bars = ops.iter().zip(spans).filter(|(op, _)| matches!(op, Op::Compute { .. }));
            bars.map(|(op, span)| Bar { op: op.clone(), start: span.start, end: span.end }).collect()
        });
        let (time, busy) = (simulation.time(), 100.0 * simulation.utilization());
        Timeline {
            title: title.to_owned(),
            note: format!("time {} · ranks compute {busy:.0} % of it", number(time)),
            unit: TimeUnit::Cost,
            ranks: ranks.collect(),
            memory: simulation.memory(table, workload),
        }
    }

    /// When the last bar ends.
    pub fn end(&self) -> f64 {
        self.ranks.iter().flatten().map(|bar| bar.end).fold(0.0, f64::max)
    }
}

/// Formats of timelines, by file extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One picture, self-contained.
    Svg,
    /// The picture in a page with hover and zoom, self-contained.
    Html,
    /// A trace for ui.perfetto.dev or chrome://tracing.
    Perfetto,
}

/// A file name that does not say in which format to draw.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{given}` does not say how to draw a timeline: end the name with .svg, .html or .json (a Perfetto trace)"
)]
pub struct FormatError {
    /// The file name.
    pub given: String,
}

impl Format {
    /// The format that a file name's extension stands for.
    ///
    /// # Errors
    /// Where it is none of `.svg`, `.html`, `.json`.
    pub fn of(path: &Path) -> Result<Format, FormatError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Format::Svg),
            Some("html" | "htm") => Ok(Format::Html),
            Some("json") => Ok(Format::Perfetto),
            _ => Err(FormatError { given: path.display().to_string() }),
        }
    }

    /// Draws timelines under each other.
    pub fn draw(self, timelines: &[Timeline]) -> String {
        match self {
            Format::Svg => svg(timelines),
            Format::Html => html(timelines),
            Format::Perfetto => perfetto(timelines),
        }
    }
}

/// What an op does, in words: `LLM chunk 1 forward · microbatch 3`.
fn describe(op: &Op) -> String {
    let Op::Compute { module, phase, .. } = op else { return op.to_string() };
    let module = match module {
        Module::Encoder(_) => "encoder".to_owned(),
        Module::Llm(chunk) => format!("LLM chunk {}", chunk.0),
        Module::Generator(_) => "generator".to_owned(),
    };
    let mut items = Vec::new();
    let mut microbatch = String::new();
    for unit in op.units() {
        match unit.piece {
            Piece::Microbatch(whole) => microbatch = format!("microbatch {}", whole.0),
            Piece::Item(item) => items.push(item.to_string()),
        }
    }
    if !items.is_empty() {
        microbatch = format!("item{} {}", if items.len() == 1 { "" } else { "s" }, items.join(", "));
    }
    format!("{module} {} · {microbatch}", phase_name(*phase))
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "forward",
        Phase::Backward => "backward",
        Phase::BackwardInput => "input gradient",
        Phase::BackwardWeight => "weight gradient",
        Phase::Recompute => "recomputation",
    }
}

fn module_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Encoder => "encoder",
        ModuleKind::Llm => "LLM",
        ModuleKind::Generator => "generator",
    }
}

/// A time in words.
fn duration(time: f64, unit: TimeUnit) -> String {
    match unit {
        TimeUnit::Cost => number(time),
        TimeUnit::Seconds if time < 1.0 => format!("{} ms", number(time * 1e3)),
        TimeUnit::Seconds => format!("{} s", number(time)),
    }
}

/// A number with at most three decimals, without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
