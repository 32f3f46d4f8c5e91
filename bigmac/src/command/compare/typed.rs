//! Schedules side by side on the clock.

use std::fmt::Write;

use bigmac_schedule::render::{Format, Timeline};
use bigmac_schedule::{LlmSchedule, ModuleKind, PerModule, Schedule, Workload, registry};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::Compare;
use crate::command::outcome::{Outcome, draw, short};
use crate::command::{paragraph, print};

/// What everything is compared with.
pub(super) const REFERENCE: &str = "nested";
/// The order of the LLM's chunks where none is asked for.
const DEFAULT_LLM: &str = "1f1b";

/// A line of the comparison.
struct Row {
    schedule: &'static str,
    llm: &'static str,
    /// What it does, or why there is no such schedule for the step.
    outcome: anyhow::Result<Outcome>,
}

struct Comparison {
    rows: Vec<Row>,
    /// Time and rank-time of `nested` on the first LLM order, where it exists.
    reference: Option<(f64, f64)>,
    /// Bytes of a whole microbatch, where they are known.
    saved: PerModule<Option<u64>>,
}

impl Compare {
    /// Compares on the costs of the command line or of a file.
    pub(super) fn typed(&self) -> anyhow::Result<()> {
        let format = self.timeline.as_deref().map(Format::of).transpose()?;
        let (schedules, llms) = (self.schedules()?, self.llms(DEFAULT_LLM)?);
        let workload = self.shape.workload()?;
        let comparison = self.comparison(&schedules, &llms, &workload)?;
        if let (Some(path), Some(format)) = (&self.timeline, format) {
            let title = |row: &Row| match llms.len() {
                1 => row.schedule.to_owned(),
                _ => format!("{} on {}", row.schedule, row.llm),
            };
            let timeline = |row: &Row| row.outcome.as_ref().ok().map(|one| one.timeline(&title(row)));
            let timelines: Vec<Timeline> = comparison.rows.iter().filter_map(timeline).collect();
            draw(path, format, &timelines)?;
        }
        let text =
            if self.json { comparison.json(&workload) } else { comparison.report(&workload, llms.len() > 1) };
        print(&text)
    }

    fn comparison(
        &self,
        schedules: &[&'static Schedule],
        llms: &[&'static LlmSchedule],
        workload: &Workload,
    ) -> anyhow::Result<Comparison> {
        let row = |schedule: &'static Schedule, llm: &'static LlmSchedule| Row {
            schedule: schedule.name(),
            llm: llm.name(),
            outcome: Outcome::of(schedule, workload, &self.shape.options(llm)),
        };
        let pairs = schedules.iter().flat_map(|schedule| llms.iter().map(|llm| (*schedule, *llm)));
        let rows: Vec<Row> = pairs.map(|(schedule, llm)| row(schedule, llm)).collect();
        let found = rows.iter().find(|row| row.schedule == REFERENCE);
        let costs = |row: &Row| row.outcome.as_ref().ok().map(|one| (one.simulation.time(), one.rank_time()));
        let reference = match (found, llms.first()) {
            (Some(found), _) => costs(found),
            (None, Some(llm)) => costs(&row(registry::schedule(REFERENCE)?, llm)),
            (None, None) => None,
        };
        let saved = llms.first().map(|llm| self.shape.options(llm).limits.microbatch_bytes);
        Ok(Comparison { rows, reference, saved: saved.unwrap_or_default() })
    }
}

impl Outcome {
    /// What the step costs in ranks and time together.
    fn rank_time(&self) -> f64 {
        self.simulation.time() * self.workload.ranks() as f64
    }
}

impl Comparison {
    fn report(&self, workload: &Workload, several: bool) -> String {
        let wide = self.rows.iter().map(|row| self.title(row, several).chars().count()).max().unwrap_or(0);
        let unit = if self.saved == PerModule::default() { "microbatches" } else { "bytes where known" };
        let mut text = format!(
            "{} ranks, {} microbatches; activation peaks of the fullest rank in {unit}\n\n",
            workload.ranks(),
            workload.len(),
        );
        // Writing to a String cannot fail, so the results of writeln! carry nothing.
        let _ = writeln!(
            text,
            "{:<wide$}{:>10}{:>10}{:>9}{:>9}{:>7}{:>11}{:>10}{:>8}{:>7}{:>12}{:>12}{:>12}",
            "schedule",
            "time",
            "x nested",
            "x ideal",
            "x bound",
            "ranks",
            "rank-time",
            "x nested",
            "bubble",
            "busy",
            "encoder",
            "llm",
            "generator"
        );
        for row in &self.rows {
            let title = self.title(row, several);
            let _ = match &row.outcome {
                Ok(one) => writeln!(text, "{title:<wide$}{}", self.columns(one)),
                Err(reason) => writeln!(text, "{title:<wide$}  none: {}", paragraph(reason)),
            };
        }
        text
    }

    fn title(&self, row: &Row, several: bool) -> String {
        if several { format!("{} ({})", row.schedule, row.llm) } else { row.schedule.to_owned() }
    }

    fn columns(&self, one: &Outcome) -> String {
        let time = one.simulation.time();
        let over = |value: f64, other: Option<f64>| match other {
            Some(other) if other > 0.0 => format!("{:.3}", value / other),
            _ => "-".to_owned(),
        };
        let (nested, nested_ranks) = self.reference.unzip();
        let peak = |kind| match self.saved[kind] {
            Some(bytes) => BinaryBytes((one.peak(kind) * bytes as f64).round() as u64).to_string(),
            None => short(one.peak(kind)),
        };
        format!(
            "{:>10}{:>10}{:>9}{:>9}{:>7}{:>11}{:>10}{:>7.1}%{:>6.1}%{:>12}{:>12}{:>12}",
            short(time),
            over(time, nested),
            over(time, Some(one.ideal)),
            over(time, Some(one.bound)),
            one.workload.ranks(),
            short(one.rank_time()),
            over(one.rank_time(), nested_ranks),
            100.0 * one.simulation.bubble_rate(),
            100.0 * one.simulation.utilization(),
            peak(ModuleKind::Encoder),
            peak(ModuleKind::Llm),
            peak(ModuleKind::Generator),
        )
    }

    fn json(&self, workload: &Workload) -> String {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        let value = json!({
            "ranks": workload.ranks(),
            "microbatches": workload.len(),
            "encoder_items": workload.loads().iter().map(|load| load.encoder.len()).collect::<Vec<_>>(),
            "generator_items": workload.loads().iter().map(|load| load.generator.len()).collect::<Vec<_>>(),
            "reference": REFERENCE,
            "schedules": rows,
        });
        format!("{value:#}\n")
    }

    fn row_json(&self, row: &Row) -> Value {
        let one = match &row.outcome {
            Ok(one) => one,
            Err(reason) => {
                return json!({ "schedule": row.schedule, "llm": row.llm, "error": paragraph(reason) });
            }
        };
        let mut value = one.json();
        let ratio =
            |value: f64, other: Option<f64>| other.filter(|other| *other > 0.0).map(|other| value / other);
        let (nested, nested_ranks) = self.reference.unzip();
        let bytes = |kind| self.saved[kind].map(|bytes: u64| (one.peak(kind) * bytes as f64).round() as u64);
        let peaks = |of: &dyn Fn(ModuleKind) -> Value| {
            Value::Object(ModuleKind::ALL.iter().map(|kind| (kind.name().to_owned(), of(*kind))).collect())
        };
        for (key, extra) in [
            ("ratio", json!(ratio(one.simulation.time(), nested))),
            ("rank_time", json!(one.rank_time())),
            ("rank_time_ratio", json!(ratio(one.rank_time(), nested_ranks))),
            ("utilization", json!(one.simulation.utilization())),
            ("peak", peaks(&|kind| json!(one.peak(kind)))),
            ("peak_bytes", peaks(&|kind| json!(bytes(kind)))),
        ] {
            value[key] = extra;
        }
        value
    }
}
