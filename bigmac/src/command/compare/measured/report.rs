//! What was compared, as text, JSON and timelines.

use super::{Comparison, Peak, REFERENCE, Row, Simulated, Turn};
use crate::command::paragraph;
use crate::command::table::{heads, line, percent, seconds};
use bigmac::cost::Spread;
use bigmac::execute::Measured;
use bigmac::measure::Way;
use bigmac_schedule::render::{TimeUnit, Timeline, Trace};
use bigmac_schedule::{ModuleKind, PerModule, simulate_durations};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

/// Widths of the columns of what was measured.
const MEASURED: [isize; 8] = [12, 28, 10, 10, 19, 24, 24, 24];
/// And of what ran one at a time beside what ran in parallel.
const PARALLEL: [isize; 5] = [12, 12, 19, 14, 19];

impl Comparison<'_> {
    fn reference(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.schedule == REFERENCE)
    }

    fn simulated_ratio(&self, one: &Simulated) -> Option<f64> {
        let reference = self.reference()?.simulated.as_ref().ok()?;
        Some(one.clocked.seconds / reference.clocked.seconds)
    }

    fn title(&self, row: &Row) -> String {
        let several = self.rows.iter().any(|other| other.llm != row.llm);
        if several { format!("{} ({})", row.schedule, row.llm) } else { row.schedule.to_owned() }
    }

    pub(super) fn report(&self) -> String {
        let pipeline = &self.config.pipeline;
        let (loads, taken) = (&self.plan.microbatches, &self.profile.taken);
        let mut text = format!(
            "Step {} of {}: {} microbatches, {} images to read, {} to draw; {} ranks of {} threads\n\
             Costs measured on {} ({})\n\
             Seconds are those of the pipeline. After it follow the reduction of gradients ({}) and the optimizer ({}).\n\n",
            self.step,
            self.config.run.name,
            loads.len(),
            loads.iter().map(|load| load.images.len()).sum::<usize>(),
            loads.iter().map(|load| load.draws.len()).sum::<usize>(),
            pipeline.ranks,
            pipeline.threads,
            taken.date,
            taken.processor,
            seconds(self.profile.around.reduce.median),
            seconds(self.profile.around.optimizer.median),
        );
        let wide = self.rows.iter().map(|row| self.title(row).chars().count()).max().unwrap_or(0).max(8);
        let ran = self.rows.iter().any(|row| row.measured.is_some());
        let simulated = heads([-(wide as isize), 11, 10], "schedule|simulated|x nested");
        let names = "measured|(quartiles)|error|x nested|(quartiles)|encoder|llm|generator";
        let measured = if ran { heads(MEASURED, names) } else { "\n".to_owned() };
        text += &(simulated.trim_end_matches('\n').to_owned() + &measured);
        for row in &self.rows {
            text += &format!("{:<wide$}{}\n", self.title(row), self.columns(row));
        }
        if ran {
            text.push_str(
                "\nerror is measured / simulated - 1; activations are the peak of the fullest rank, as measured and \
                 predicted\n(one figure where both are the same).\n",
            );
        }
        if self.way == Way::OneAtATime { text + &self.in_parallel(wide) } else { text }
    }

    /// One op at a time beside all ranks at once.
    fn in_parallel(&self, wide: usize) -> String {
        let mut text = "\nOne op ran at a time; what each took is put on the ranks' clocks.\n".to_owned();
        match self.profile.contention() {
            Some(factor) => text += &format!("Ops take {factor:.3} times as long with all ranks busy.\n"),
            None => text += "Contention between ranks was not measured: they are more than the processors.\n",
        }
        if self.rows.iter().all(|row| row.agreement().is_none()) {
            return text;
        }
        text += "\nOver the same schedule with all ranks at once, with that contention and without it:\n\n";
        text += heads([-(wide as isize)], "schedule").trim_end_matches('\n');
        text += &heads(PARALLEL, "in parallel|corrected|(quartiles)|uncorrected|(quartiles)");
        for row in &self.rows {
            let Some((run, (corrected, uncorrected))) = row.measured.as_ref().zip(row.agreement()) else {
                continue;
            };
            let median = |spread: Option<Spread>| {
                spread.map_or("-".to_owned(), |spread| format!("{:.3}", spread.median))
            };
            let quartiles = |spread: Option<Spread>| {
                spread.map(|one| format!("({:.3} to {:.3})", one.lower, one.upper)).unwrap_or_default()
            };
            let parallel = Spread::of(run.parallel.iter().copied());
            let cells = [
                parallel.map_or("-".to_owned(), |spread| seconds(spread.median)),
                median(corrected),
                quartiles(corrected),
                median(Some(uncorrected)),
                quartiles(Some(uncorrected)),
            ];
            text += &format!("{:<wide$}{}", self.title(row), line(PARALLEL, cells));
        }
        text
    }

    fn columns(&self, row: &Row) -> String {
        let one = match &row.simulated {
            Ok(one) => one,
            Err(reason) => return format!("  none: {reason}"),
        };
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        let text = format!("{:>11}{:>10}", seconds(one.clocked.seconds), ratio(self.simulated_ratio(one)));
        let Some((run, measured)) = row.measured.as_ref().zip(row.seconds()) else { return text };
        let over = self.reference().and_then(|reference| row.ratio(reference));
        let quartiles = over.map(|over| format!("({:.3} to {:.3})", over.lower, over.upper));
        let [encoder, llm, generator] = ModuleKind::ALL.map(|kind| match run.fullest()[kind] {
            Peak { measured, predicted } if measured == predicted => BinaryBytes(measured).to_string(),
            Peak { measured, predicted } => {
                format!("{} / {}", BinaryBytes(measured), BinaryBytes(predicted))
            }
        });
        let cells = [
            seconds(measured.median),
            format!("({} to {})", seconds(measured.lower), seconds(measured.upper)),
            percent(row.error().unwrap_or(0.0)),
            ratio(over.map(|over| over.median)),
            quartiles.unwrap_or_default(),
            encoder,
            llm,
            generator,
        ];
        text + line(MEASURED, cells).trim_end_matches('\n')
    }

    pub(super) fn json(&self) -> String {
        let pipeline = &self.config.pipeline;
        let mut value = json!({
            "configuration": self.config.run.name,
            "step": self.step,
            "microbatches": self.plan.microbatches.len(),
            "ranks": pipeline.ranks,
            "threads": pipeline.threads,
            "reference": REFERENCE,
            "schedules": self.rows.iter().map(|row| self.row_json(row)).collect::<Vec<_>>(),
        });
        if self.way == Way::OneAtATime {
            value["one_at_a_time"] = json!(true);
            value["contention"] = json!({
                "factor": self.profile.contention(),
                "units": self.profile.unit.iter().map(|unit| {
                    let (module, chunk, phase) = unit.key();
                    json!({ "module": module, "chunk": chunk, "phase": phase, "factor": unit.contention })
                }).collect::<Vec<_>>(),
            });
        }
        format!("{value:#}\n")
    }

    fn row_json(&self, row: &Row) -> Value {
        let one = match &row.simulated {
            Ok(one) => one,
            Err(reason) => {
                let reason = paragraph(&anyhow::anyhow!("{reason}"));
                return json!({ "schedule": row.schedule, "llm": row.llm, "error": reason });
            }
        };
        let simulation = &one.clocked.simulation;
        let mut value = json!({
            "schedule": row.schedule,
            "llm": row.llm,
            "simulated": {
                "seconds": one.clocked.seconds,
                "ratio": self.simulated_ratio(one),
                "quartiles": one.clocked.quartiles,
                "bubble_rate": simulation.bubble_rate(),
                "utilization": simulation.utilization(),
                "busy": simulation.busy,
            },
            "measured": row.seconds().map(|seconds| json!({
                "seconds": seconds,
                "ratio": self.reference().and_then(|reference| row.ratio(reference)),
                "error": row.error(),
                "busy": row.busy(),
                "peak_bytes": row.measured.as_ref().map(super::Run::fullest),
            })),
        });
        if let (Way::OneAtATime, Some(run)) = (self.way, &row.measured) {
            let measured = |peaks: &PerModule<Peak>| peaks.map(|peak| peak.measured);
            value["peak_bytes"] = json!(run.peaks.iter().map(measured).collect::<Vec<_>>());
            if let Some(seconds) = Spread::of(run.contended.iter().copied()) {
                value["contended"] = json!({ "seconds": seconds });
            }
            if let (Some(seconds), Some((corrected, uncorrected))) =
                (Spread::of(run.parallel.iter().copied()), row.agreement())
            {
                value["parallel"] = json!({
                    "seconds": seconds,
                    "measured_over_parallel": uncorrected,
                    "contended_over_parallel": corrected,
                });
            }
        }
        value
    }

    /// Every schedule as simulated, and as measured in the round of its median.
    pub(super) fn timelines(&self) -> Vec<Timeline> {
        let mut timelines = Vec::new();
        for row in &self.rows {
            let Ok(one) = &row.simulated else { continue };
            let (title, program) = (self.title(row), &one.contender.program);
            let (table, workload) = (&program.table, &program.workload);
            let simulated =
                Timeline::simulated(&format!("{title}, simulated"), table, workload, &one.clocked.simulation);
            timelines.push(simulated.scaled(1.0, TimeUnit::Seconds));
            let Some(run) = &row.measured else { continue };
            let mut turns: Vec<&Turn> = run.turns.iter().collect();
            turns.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if let Some(turn) = turns.get(turns.len() / 2) {
                let mut traces: Vec<Trace> = turn.ranks.iter().map(Measured::trace).collect();
                if self.way == Way::OneAtATime {
                    // Not when ops ran, but when they would have on ranks of their own.
                    let Ok(clock) = simulate_durations(table, workload, &turn.durations(program)) else {
                        continue;
                    };
                    for (trace, spans) in traces.iter_mut().zip(clock.spans) {
                        trace.spans = spans.into_iter().map(|span| (span.start, span.end)).collect();
                    }
                }
                timelines.push(Timeline::measured(&format!("{title}, measured"), table, &traces));
            }
        }
        timelines
    }
}
