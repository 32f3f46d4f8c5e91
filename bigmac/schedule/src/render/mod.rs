//! Pictures of what ran when: SVG and HTML to look at, Perfetto (Chrome) traces to dig through.
//!
//! A [`Timeline`] is drawn the same way whether its times come from a simulation or from a measured step. Several of
//! them share one time axis, so that schedules can be compared by eye.

mod html;
mod memory;
mod palette;
mod perfetto;
mod svg;
mod words;

use crate::clock::Simulation;
use crate::clock::memory::walk;
use crate::step::{Op, PerModule, Table, Unit, Workload};
use serde::{Deserialize, Serialize};
use std::path::Path;
use thiserror::Error;
use words::duration;

pub use html::html;
pub(crate) use perfetto::perfetto;
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

/// What 1.0 of activations is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemoryUnit {
    /// What a whole microbatch keeps on a rank.
    #[default]
    Microbatches,
    /// A byte.
    Bytes,
}

impl TimeUnit {
    fn name(self) -> &'static str {
        match self {
            TimeUnit::Cost => "cost",
            TimeUnit::Seconds => "seconds",
        }
    }
}

impl MemoryUnit {
    fn name(self) -> &'static str {
        match self {
            MemoryUnit::Microbatches => "microbatches",
            MemoryUnit::Bytes => "bytes",
        }
    }
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
    /// Bytes of activations: those that a forward comes to hold, or those that a backward gives back. `None` where they
    /// are not known.
    pub bytes: Option<u64>,
}

/// What a rank measured while it ran its list of ops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Start and end of each op, in seconds, without the time in which it waited for what it reads.
    pub spans: Vec<(f64, f64)>,
    /// After each op, the bytes that each module's live activations held.
    pub held: Vec<PerModule<usize>>,
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
    /// What activations are in.
    pub memory_unit: MemoryUnit,
    /// Per rank: the moments at which live activations change and how much of each module is live from then on. May be
    /// empty: then no memory is drawn.
    pub memory: Vec<Vec<(f64, PerModule<f64>)>>,
}

impl Timeline {
    /// The timeline of a simulated table: activations in bytes where the workload knows its sizes, else in
    /// microbatches.
    pub fn simulated(title: &str, table: &Table, workload: &Workload, simulation: &Simulation) -> Timeline {
        let saved = |unit: Unit| workload.saved(unit);
        let sized = table.iter().flat_map(|(_, op)| op.units()).all(|unit| saved(unit).is_some());
        let ranks = table.ranks.iter().zip(&simulation.spans).map(|(ops, spans)| {
            let mut moved = vec![0; ops.len()];
            walk(ops, workload, |index, unit, _| moved[index] += saved(unit).unwrap_or(0));
            let bars = ops.iter().zip(spans).zip(moved);
            bars.filter(|((op, _), _)| op.is_compute())
                .map(|((op, span), bytes)| Bar {
                    op: op.clone(),
                    start: span.start,
                    end: span.end,
                    bytes: sized.then_some(bytes),
                })
                .collect()
        });
        let (memory_unit, memory) = match sized {
            true => {
                let bytes = |unit| saved(unit).unwrap_or(0) as f64;
                (MemoryUnit::Bytes, simulation.memory_in(table, workload, bytes))
            }
            false => (MemoryUnit::Microbatches, simulation.memory(table, workload)),
        };
        Timeline {
            title: title.to_owned(),
            note: String::new(),
            unit: TimeUnit::Cost,
            ranks: ranks.collect(),
            memory_unit,
            memory,
        }
        .summed_up()
    }

    /// The timeline of a measured step of a table; one of `traces` per rank. What an op moved is the change of its own
    /// module's bytes.
    pub fn measured(title: &str, table: &Table, traces: &[Trace]) -> Timeline {
        let mut timeline = Timeline {
            title: title.to_owned(),
            unit: TimeUnit::Seconds,
            memory_unit: MemoryUnit::Bytes,
            ..Timeline::default()
        };
        for (ops, Trace { spans, held }) in table.ranks.iter().zip(traces) {
            let (mut bars, mut points) = (Vec::new(), Vec::new());
            let mut before = PerModule::<usize>::default();
            for ((op, &(start, end)), &after) in ops.iter().zip(spans).zip(held) {
                if let Some(unit) = op.units().next() {
                    let kind = unit.module.kind();
                    let bytes = after[kind].abs_diff(before[kind]) as u64;
                    bars.push(Bar { op: op.clone(), start, end, bytes: Some(bytes) });
                }
                if after != before {
                    points.push((end, after.map(|bytes| bytes as f64)));
                }
                before = after;
            }
            timeline.ranks.push(bars);
            timeline.memory.push(points);
        }
        timeline.summed_up()
    }

    /// With its time, bubble (as [`Simulation::bubble_rate`] counts it) and the ranks' busy share as the note.
    fn summed_up(mut self) -> Timeline {
        let busy = |bars: &Vec<Bar>| bars.iter().map(|bar| bar.end - bar.start).sum::<f64>();
        let active = |bars: &Vec<Bar>| Some(bars.last()?.end - bars.first()?.start);
        let share = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let most = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
        let longest = most(&mut self.ranks.iter().filter_map(active));
        let busiest = most(&mut self.ranks.iter().map(busy));
        let total = self.end() * self.ranks.len() as f64;
        self.note = format!(
            "time {} · bubble {:.1} % · ranks compute {:.0} % of the time",
            duration(self.end(), self.unit),
            share(longest - busiest, longest),
            share(self.ranks.iter().map(busy).sum(), total)
        );
        self
    }

    /// The same with every moment `factor` times as late, in another unit of time, and with a new note.
    pub fn scaled(mut self, factor: f64, unit: TimeUnit) -> Timeline {
        for bar in self.ranks.iter_mut().flatten() {
            (bar.start, bar.end) = (bar.start * factor, bar.end * factor);
        }
        self.memory.iter_mut().flatten().for_each(|point| point.0 *= factor);
        self.unit = unit;
        self.summed_up()
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
    "'{given}' does not say how to draw a timeline: end the name with .svg, .html or .json (a Perfetto trace)"
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
