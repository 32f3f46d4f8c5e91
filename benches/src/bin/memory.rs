//! Activation memory of `nested` and `phased` as the batch grows: bytes measured beside bytes predicted, per rank and
//! module.

use anyhow::{Context as _, Result};
use bigmac::config::{Config, Model, Pipeline};
use bigmac::sizes::Llm;
use bigmac_benches::chart::{Emphasis, Heading, Line, lines};
use bigmac_schedule::{ModuleKind, PerModule};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::steps::run_step;
use clap::Parser;
use serde::Serialize;
use std::path::PathBuf;

/// Measures the activation memory of a step as the batch grows, and compares it with what planning predicted.
///
/// Every microbatch is the same: four captioned pictures and four drawings, through the default model with a fourth LLM
/// layer. A step is run for real; what is counted are the bytes that forwards save for their backwards.
///
/// Example: cargo run --release -p bigmac-benches --bin memory -- --ranks 2,4 --largest 64
#[derive(Parser, Debug)]
#[command(verbatim_doc_comment)]
struct Args {
    /// Ranks of the pipelines.
    #[arg(long, value_delimiter = ',', default_value = "2,4")]
    ranks: Vec<usize>,
    /// Schedules.
    #[arg(long, value_delimiter = ',', default_value = "nested,phased")]
    schedules: Vec<String>,
    /// The largest number of microbatches; the smallest is four per rank, and each next is twice as large.
    #[arg(long, default_value_t = 64)]
    largest: usize,
    /// Print one JSON object per rank and step instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw the activations of the fullest rank against the batch into this file, for the first number of ranks.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// What one rank held in one step.
#[derive(Debug, Serialize)]
struct Row {
    schedule: String,
    ranks: usize,
    microbatches: usize,
    rank: usize,
    /// Bytes of encoder, LLM and generator.
    measured: [u64; 3],
    /// The same, predicted.
    predicted: [u64; 3],
}

fn config() -> Config {
    Config {
        model: Model { llm: Llm { layers: 4, ..Llm::default() }, ..Model::default() },
        ..Config::default()
    }
}

const LINES: [&str; 2] = [
    r#"{"text": "<image> two small red circles above a square", "images": ["0.png"]}"#,
    r#"{"text": "a large blue triangle on the left", "draw": "1.png"}"#,
];
const MICROBATCH: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 1];

fn list<T: Copy, U>(values: &PerModule<T>, of: impl Fn(T) -> U) -> [U; 3] {
    ModuleKind::ALL.map(|kind| of(values[kind]))
}

fn measure(set: &SmallSet, schedule: &str, ranks: usize, microbatches: usize) -> Result<Vec<Row>> {
    let plan = set.plan(&vec![&MICROBATCH[..]; microbatches])?;
    let pipeline = Pipeline { schedule: schedule.to_owned(), ranks, ..Pipeline::default() };
    let step = run_step(&set.session, &plan, &pipeline)?;
    let row = |(rank, result): (usize, &bigmac_tests::steps::RankResult)| Row {
        schedule: schedule.to_owned(),
        ranks,
        microbatches,
        rank,
        measured: list(&result.measured.saved, |bytes| bytes as u64),
        predicted: list(&result.peak, |bytes| bytes),
    };
    Ok(step.ranks.iter().enumerate().map(row).collect())
}

fn print(row: &Row) {
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let cells = row.measured.iter().zip(&row.predicted);
    let cells: Vec<String> = cells.map(|(m, p)| format!("{:>10.1} {:>10.1}", kib(*m), kib(*p))).collect();
    println!(
        "{:<12} {:>2} {:>4} {:>5} | {}",
        row.schedule,
        row.ranks,
        row.microbatches,
        row.rank,
        cells.join(" | ")
    );
}

/// The measured activations of the fullest rank against the batch, a line for each schedule.
fn draw(rows: &[Row], ranks: usize) -> String {
    let mut drawn: Vec<Line> = Vec::new();
    for row in rows.iter().filter(|row| row.ranks == ranks) {
        if drawn.last().is_none_or(|line| line.name != row.schedule) {
            let emphasis = if row.schedule.starts_with("nested") { Emphasis::Strong } else { Emphasis::Weak };
            drawn.push(Line { name: row.schedule.clone(), points: Vec::new(), emphasis });
        }
        let (batch, held) =
            (row.microbatches as f64, row.measured.iter().sum::<u64>() as f64 / (1 << 20) as f64);
        if let Some(line) = drawn.last_mut() {
            match line.points.last_mut() {
                Some(point) if point.0 == batch => point.1 = point.1.max(held),
                _ => line.points.push((batch, held)),
            }
        }
    }
    let heading = Heading {
        title: "Activation memory as the batch grows".into(),
        subtitle: format!(
            "the fullest of {ranks} ranks, measured in steps that were run; encoder, LLM and generator together"
        ),
    };
    lines(&heading, ["microbatches per step", "MiB"], &drawn)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let set = SmallSet::new(&LINES, &config())?;
    if !args.json {
        println!("KiB of saved activations at their peak, measured and predicted");
        let modules = ModuleKind::ALL.map(|kind| format!("{:^21}", kind.name())).join(" | ");
        println!("{:<12} {:>2} {:>4} {:>5} | {modules}", "schedule", "p", "N", "rank");
    }
    let mut rows = Vec::new();
    for schedule in &args.schedules {
        for &ranks in &args.ranks {
            let sizes = std::iter::successors(Some(4 * ranks), |n| Some(2 * n));
            for microbatches in sizes.take_while(|n| *n <= args.largest) {
                for row in measure(&set, schedule, ranks, microbatches)? {
                    if args.json {
                        println!("{}", serde_json::to_string(&row)?);
                    } else {
                        print(&row);
                    }
                    rows.push(row);
                }
            }
        }
    }
    let differ = rows.iter().filter(|row| row.measured != row.predicted).count();
    if let (Some(path), Some(&ranks)) = (&args.svg, args.ranks.first()) {
        std::fs::write(path, draw(&rows, ranks))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let rows = rows.len();
    if !args.json {
        match differ {
            0 => println!("measured == predicted in all {rows} rows, to the byte"),
            _ => println!("measured != predicted in {differ} of {rows} rows"),
        }
    }
    anyhow::ensure!(differ == 0, "{differ} of {rows} measurements are not what was predicted");
    Ok(())
}
