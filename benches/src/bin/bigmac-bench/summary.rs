//! A page about rows of the lab and of training steps: what a run on a borrowed device prints last.

use anyhow::{Context as _, bail};
use bigmac_runtime::fs::read_text;
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Sum up the rows of `kernels --out` and the objects of `step --json`: a line for each case and step.
///
/// A case's line has what the operator chooses by itself, its share of the ceiling, what was predicted, how many
/// times as fast as PyTorch it is, and the fastest of its variants where that is another. Files that hold nothing are
/// passed over.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bigmac-bench summary kernels.jsonl step.jsonl")]
pub struct Summary {
    /// Files of JSON lines.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

impl Summary {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be read, or a line of it is neither a row nor a step.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut cases: Vec<CaseRows> = Vec::new();
        let mut steps = Vec::new();
        for file in &self.files {
            for (number, line) in read(file)?.into_iter().enumerate() {
                let place = || format!("{}, line {}", file.display(), number + 1);
                if line.get("tokens_per_second").is_some() {
                    steps.push(step(&line).with_context(place)?);
                } else if line.get("op").is_some() {
                    add(&mut cases, line).with_context(place)?;
                } else {
                    bail!("{}: expected a row of `kernels --out` or an object of `step --json`", place());
                }
            }
        }
        steps.iter().for_each(|step| println!("{step}"));
        cases.iter().for_each(|case| println!("{}", case.line()));
        Ok(())
    }
}

/// The lines of a file, each an object.
fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}, line {}, is not JSON", path.display(), number + 1))
    };
    lines.map(parse).collect()
}

/// All rows of a case.
struct CaseRows {
    name: String,
    rows: Vec<Value>,
}

fn add(cases: &mut Vec<CaseRows>, row: Value) -> anyhow::Result<()> {
    let text = |key: &str| row[key].as_str().with_context(|| format!("it has no {key}"));
    let name = format!("{} {} {} {}", text("op")?, text("pass")?, text("shape")?, text("dtype")?);
    match cases.iter_mut().find(|case| case.name == name) {
        Some(case) => case.rows.push(row),
        None => cases.push(CaseRows { name, rows: vec![row] }),
    }
    Ok(())
}

/// A row's rate, in the unit of what bounds the case.
fn rate(row: &Value) -> Option<(f64, &'static str)> {
    let of = |key: &str, unit| row[key].as_f64().map(|rate| (rate, unit));
    of("tflop_per_s", "TFLOP/s").or_else(|| of("gb_per_s", "GB/s"))
}

impl CaseRows {
    fn line(&self) -> String {
        let wrong = self.rows.iter().find(|row| ["wrong", "failed"].iter().any(|v| row["verdict"] == *v));
        let own = || self.rows.iter().filter(|row| row["variant"].is_null());
        let mut parts = vec![format!("{:<46}", self.name)];
        if let Some(row) = wrong {
            let variant = row["variant"].as_u64().map_or(String::new(), |number| format!(" #{number}"));
            let reason: String = row["reason"].as_str().unwrap_or_default().chars().take(120).collect();
            let verdict = row["verdict"].as_str().unwrap_or_default().to_uppercase();
            parts.push(format!("{verdict}{variant}: {reason};"));
        }
        let timed = own().filter_map(|row| Some((row, rate(row)?))).next_back();
        match timed {
            Some((row, (rate, unit))) => {
                parts.push(format!("{rate:.0} {unit}"));
                parts.extend(row["share"].as_f64().map(|share| format!("{:.0} %", 100.0 * share)));
                let predicted = row["predicted"]["low"].as_f64().zip(row["predicted"]["high"].as_f64());
                parts.extend(predicted.map(|(low, high)| format!("predicted {low} to {high}")));
            }
            None if wrong.is_none() => {
                parts
                    .push(own().next().and_then(|row| row["verdict"].as_str()).unwrap_or("no choice").into());
            }
            None => {}
        }
        let ratio = own().filter_map(|row| row["ratio"]["median"].as_f64()).next_back();
        parts.extend(ratio.map(|ratio| format!("x {ratio:.2} PyTorch")));
        let variants = self.rows.iter().filter_map(|row| Some((row["variant"].as_u64()?, rate(row)?.0)));
        let fastest = variants.max_by(|x, y| x.1.total_cmp(&y.1));
        let faster = fastest.filter(|(_, rate)| timed.is_none_or(|(_, (own, _))| *rate > 1.02 * own));
        parts.extend(faster.map(|(number, rate)| format!("fastest #{number} {rate:.0}")));
        parts.join(" ")
    }
}

/// A step's line.
fn step(step: &Value) -> anyhow::Result<String> {
    let number = |key: &str| step[key].as_f64().with_context(|| format!("it has no number {key}"));
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let name = [text("model"), text("framework"), text("way")].join(" ");
    let mut line = format!("step {name:<36} {:.0} tokens/s", number("tokens_per_second")?);
    if let Some(mfu) = step["mfu"].as_f64() {
        line.push_str(&format!(", MFU {:.1} %", 100.0 * mfu));
    }
    if let Some(launches) = step["launches"].as_f64() {
        line.push_str(&format!(", {launches:.0} launches"));
    }
    if let Some(idle) = step["idle_seconds"].as_f64() {
        line.push_str(&format!(", idle {:.2} ms", 1e3 * idle));
    }
    if let Some((bytes, ideal)) = step["bytes"].as_f64().zip(step["ideal_bytes"].as_f64()) {
        line.push_str(&format!(", {:.1} GB moved, {:.1} at best", bytes / 1e9, ideal / 1e9));
    }
    Ok(line)
}
