//! `bigmac plan --paper`: the table of BigMac's evaluation, by simulation.

use crate::command::table::{GIB, heads, line, percent};
use bigmac::plan::{Compared, Setting, compare};
use serde_json::{Value, json};

/// The models of the evaluation.
pub(super) const MODELS: [&str; 2] = ["qwen3-30b-a3b-vit", "qwen3-30b-a3b-vit-mmdit"];
/// What is compared with the others.
const OURS: [&str; 2] = ["nested", "nested-fill"];
/// Microbatches of a pipeline, in its ranks.
const BATCHES: [usize; 4] = [1, 2, 4, 8];

/// One model at one batch.
pub(super) struct Table {
    model: String,
    microbatches: usize,
    batch: usize,
    lines: Vec<Compared>,
}

/// The tables of a model: at a batch of the user's, or at some.
pub(super) fn tables(name: &str, setting: &Setting<'_>, batch: Option<usize>) -> anyhow::Result<Vec<Table>> {
    let counts = match batch {
        Some(batch) => {
            anyhow::ensure!(
                batch > 0 && batch.is_multiple_of(setting.replicas),
                "a batch of {batch} does not divide over {} replicas: give a multiple",
                setting.replicas
            );
            vec![batch / setting.replicas]
        }
        None => BATCHES.iter().map(|times| times.saturating_mul(setting.ranks)).collect(),
    };
    let table = |microbatches: usize| {
        let lines = compare(setting, microbatches)?;
        let batch = microbatches.saturating_mul(setting.replicas);
        Ok(Table { model: name.to_owned(), microbatches, batch, lines })
    };
    counts.into_iter().map(table).collect()
}

impl Table {
    fn cost(&self, schedule: &str) -> Option<f64> {
        self.lines.iter().find(|line| line.step.schedule() == Some(schedule)).map(Compared::cost)
    }

    fn cells(&self, compared: &Compared) -> [String; 9] {
        let step = &compared.step;
        let over = |ours: &str| {
            let ratio = self.cost(ours).map(|cost| compared.cost() / cost);
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"))
        };
        let gib = |bytes: u64| format!("{:.1}", bytes as f64 / GIB);
        [
            step.schedule().unwrap_or("-").to_owned(),
            step.devices.to_string(),
            format!("{:.3}s", step.seconds.pipeline),
            percent(step.bubble),
            over(OURS[0]),
            over(OURS[1]),
            gib(step.memory.iter().map(|rank| rank.activations).max().unwrap_or_default()),
            gib(step.fullest().total()),
            if compared.fits { "yes" } else { "no" }.to_owned(),
        ]
    }

    /// The speedups of one of ours over every other schedule, with whether both fit.
    fn speedups(&self, ours: &str) -> Vec<(f64, bool)> {
        let mine = self.lines.iter().find(|line| line.step.schedule() == Some(ours));
        let others =
            self.lines.iter().filter(|line| !line.step.schedule().is_some_and(|name| OURS.contains(&name)));
        mine.map_or_else(Vec::new, |mine| {
            others.map(|line| (line.cost() / mine.cost(), line.fits && mine.fits)).collect()
        })
    }
}

pub(super) fn json(tables: &[Table]) -> Value {
    let table = |table: &Table| {
        let line = |line: &Compared| {
            let fullest = line.step.fullest();
            let over = |ours: &str| table.cost(ours).map(|cost| line.cost() / cost);
            json!({
                "schedule": line.step.schedule(),
                "pipeline": line.step.seconds.pipeline,
                "devices": line.step.devices,
                "nested_speedup": over(OURS[0]),
                "nested_fill_speedup": over(OURS[1]),
                "bubble_rate": line.step.bubble,
                "activations": line.step.memory.iter().map(|rank| rank.activations).max(),
                "memory": fullest.total(),
                "fits": line.fits,
            })
        };
        json!({ "model": table.model, "microbatches": table.microbatches, "batch": table.batch,
            "schedules": table.lines.iter().map(line).collect::<Vec<Value>>() })
    };
    Value::Array(tables.iter().map(table).collect())
}

const HEADS: &str = "schedule|devices|pipeline|bubble|nested is|nested-fill|activations|memory|fits";
const WIDTHS: [isize; 9] = [-20, 8, 10, 8, 10, 13, 13, 9, 6];

pub(super) fn text(setting: &Setting<'_>, tables: &[Table]) -> String {
    let mut text = format!(
        "{} ranks x {} replicas of {}, LLM order {}, its last stage with fewer layers; LLM layers are computed again.\n\
         Speedups are by device-seconds of the pipeline; activations and memory in GiB on the fullest rank.\n",
        setting.ranks,
        setting.replicas,
        setting.device.summary,
        setting.llm.name()
    );
    for table in tables {
        let Table { model, microbatches, batch, lines } = table;
        text += &format!("\n{model}, {microbatches} microbatches in each pipeline (batch {batch})\n");
        text += &heads(WIDTHS, HEADS);
        lines.iter().for_each(|compared| text += &line(WIDTHS, table.cells(compared)));
    }
    text += "\n";
    for ours in OURS {
        let all: Vec<(f64, bool)> = tables.iter().flat_map(|table| table.speedups(ours)).collect();
        let fitting = range(all.iter().filter(|(_, fit)| *fit).map(|(ratio, _)| *ratio));
        let over = range(all.iter().map(|(ratio, _)| *ratio));
        text += &format!("{ours} over the others: {fitting} where both fit, {over} over all\n");
    }
    text + "The paper's, measured on its hardware, data and systems: 1.08x to 1.9x.\n"
}

fn range(ratios: impl Iterator<Item = f64> + Clone) -> String {
    let least = ratios.clone().fold(f64::INFINITY, f64::min);
    let most = ratios.fold(f64::NEG_INFINITY, f64::max);
    if least <= most { format!("{least:.2}x to {most:.2}x") } else { "none".to_owned() }
}
