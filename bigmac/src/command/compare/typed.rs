//! Schedules side by side on the clock.

use super::{CompareArgs, REFERENCE};
use crate::command::outcome::{Outcome, draw};
use crate::command::shape::{RANKS, check_together};
use crate::command::table::{heads, line, percent, short};
use crate::command::{paragraph, print};
use bigmac_schedule::render::{Format, Timeline};
use bigmac_schedule::{LlmSchedule, ModuleKind, PerModule, Schedule, Workload, peak_budget_bytes, registry};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

/// The order of the LLM's chunks where none is asked for.
const DEFAULT_LLM: &str = "1f1b";

/// A line of the comparison.
struct Row {
    schedule: &'static str,
    llm: &'static str,
    /// What it does, or why there is no such schedule for the step.
    outcome: anyhow::Result<Outcome>,
}

struct Comparison<'a> {
    workload: &'a Workload,
    rows: Vec<Row>,
    /// Time and rank-time of `nested` on the first LLM order, where it exists.
    reference: Option<(f64, f64)>,
    /// Bytes of the largest microbatch, where they are known.
    saved: PerModule<Option<u64>>,
    /// Rows are on several LLM orders.
    several: bool,
}

/// Compares on the costs of the command line or of a file.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let format = args.timeline.as_deref().map(Format::of).transpose()?;
    let (schedules, llms) = (args.schedules()?, args.llms(DEFAULT_LLM)?);
    let workload = args.shape.workload(args.ranks.unwrap_or(RANKS))?;
    check_together(&workload, schedules.len() * llms.len())?;
    let comparison = compare(args, &schedules, &llms, &workload)?;
    if let (Some(path), Some(format)) = (&args.timeline, format) {
        draw(path, format, &comparison.timelines())?;
    }
    print(&if args.json { comparison.json() } else { comparison.report() })
}

fn compare<'a>(
    args: &CompareArgs,
    schedules: &[&'static Schedule],
    llms: &[&'static LlmSchedule],
    workload: &'a Workload,
) -> anyhow::Result<Comparison<'a>> {
    let row = |schedule: &'static Schedule, llm: &'static LlmSchedule| Row {
        schedule: schedule.name(),
        llm: llm.name(),
        outcome: Outcome::of(schedule, workload, &args.shape.options(llm)),
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
    let saved = args.shape.limits().microbatch_bytes;
    Ok(Comparison { workload, rows, reference, saved, several: llms.len() > 1 })
}

impl Outcome {
    /// What the step costs in ranks and time together.
    fn rank_time(&self) -> f64 {
        self.simulation.time() * self.workload.ranks() as f64
    }
}

impl Comparison<'_> {
    fn timelines(&self) -> Vec<Timeline> {
        let title = |row: &Row| match self.several {
            true => format!("{} on {}", row.schedule, row.llm),
            false => row.schedule.to_owned(),
        };
        let timeline = |row: &Row| row.outcome.as_ref().ok().map(|one| one.timeline(&title(row)));
        self.rows.iter().filter_map(timeline).collect()
    }

    fn report(&self) -> String {
        let wide = self.rows.iter().map(|row| self.title(row).chars().count()).max().unwrap_or(0);
        let widths = [-(wide as isize), 10, 10, 9, 9, 7, 11, 10, 8, 7, 12, 12, 12];
        let unit = if self.saved == PerModule::default() { "microbatches" } else { "bytes where known" };
        let mut text = format!(
            "{} ranks, {} microbatches; activation peaks of the fullest rank in {unit}\n\n",
            self.workload.ranks(),
            self.workload.len(),
        );
        text += &heads(
            widths,
            "schedule|time|x nested|x ideal|x bound|ranks|rank-time|x nested|bubble|busy|encoder|llm|generator",
        );
        for row in &self.rows {
            text += &match &row.outcome {
                Ok(one) => line(widths, self.cells(self.title(row), one)),
                Err(reason) => format!("{:<wide$}  none: {}\n", self.title(row), paragraph(reason)),
            };
        }
        text
    }

    fn title(&self, row: &Row) -> String {
        if self.several { format!("{} ({})", row.schedule, row.llm) } else { row.schedule.to_owned() }
    }

    fn cells(&self, title: String, one: &Outcome) -> [String; 13] {
        let time = one.simulation.time();
        let over = |value: f64, other: Option<f64>| {
            ratio(value, other).map_or("-".to_owned(), |ratio| format!("{ratio:.3}"))
        };
        let (nested, nested_ranks) = self.reference.unzip();
        let [encoder, llm, generator] = ModuleKind::ALL.map(|kind| match self.bytes(one, kind) {
            Some(bytes) => BinaryBytes(bytes).to_string(),
            None => short(one.peak(kind)),
        });
        [
            title,
            short(time),
            over(time, nested),
            over(time, Some(one.ideal)),
            over(time, Some(one.bound)),
            one.workload.ranks().to_string(),
            short(one.rank_time()),
            over(one.rank_time(), nested_ranks),
            percent(one.simulation.bubble_rate()),
            percent(one.simulation.utilization()),
            encoder,
            llm,
            generator,
        ]
    }

    /// Bytes of a module's peak as budgets count them, where those of a microbatch are known.
    fn bytes(&self, one: &Outcome, kind: ModuleKind) -> Option<u64> {
        self.saved[kind]?;
        let peaks = peak_budget_bytes(&one.table, &one.workload, &self.saved);
        peaks.iter().filter_map(|peak| peak[kind]).max()
    }

    fn json(&self) -> String {
        let loads = self.workload.loads();
        let value = json!({
            "ranks": self.workload.ranks(),
            "microbatches": self.workload.len(),
            "encoder_items": loads.iter().map(|load| load.encoder.len()).collect::<Vec<_>>(),
            "generator_items": loads.iter().map(|load| load.generator.len()).collect::<Vec<_>>(),
            "reference": REFERENCE,
            "schedules": self.rows.iter().map(|row| self.row_json(row)).collect::<Vec<_>>(),
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
        let (nested, nested_ranks) = self.reference.unzip();
        let peaks = |of: &dyn Fn(ModuleKind) -> Value| {
            Value::Object(ModuleKind::ALL.iter().map(|kind| (kind.name().to_owned(), of(*kind))).collect())
        };
        let mut value = one.json();
        value["ratio"] = json!(ratio(one.simulation.time(), nested));
        value["rank_time"] = json!(one.rank_time());
        value["rank_time_ratio"] = json!(ratio(one.rank_time(), nested_ranks));
        value["utilization"] = json!(one.simulation.utilization());
        value["peak"] = peaks(&|kind| json!(one.peak(kind)));
        value["peak_bytes"] = peaks(&|kind| json!(self.bytes(one, kind)));
        value
    }
}

fn ratio(value: f64, other: Option<f64>) -> Option<f64> {
    other.filter(|other| *other > 0.0).map(|other| value / other)
}
