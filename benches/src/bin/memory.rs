//! Activation memory of `nested` and `phased` as the batch grows: bytes measured beside bytes foretold, per rank and module.

use anyhow::Result;
use bigmac::config::{Config, Model, Pipeline};
use bigmac::sizes::Llm;
use bigmac_schedule::{ModuleKind, PerModule};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::steps::run_step;
use clap::Parser;
use serde::Serialize;

/// Measures the activation memory of a step as the batch grows, and compares it with what planning foretold.
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
    /// The same, foretold.
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

fn main() -> Result<()> {
    let args = Args::parse();
    let set = SmallSet::new(&LINES, &config())?;
    if !args.json {
        println!("KiB of saved activations at their peak, measured and predicted");
        let modules = ModuleKind::ALL.map(|kind| format!("{:^21}", kind.name())).join(" | ");
        println!("{:<12} {:>2} {:>4} {:>5} | {modules}", "schedule", "p", "N", "rank");
    }
    let (mut rows, mut differ) = (0, 0);
    for schedule in &args.schedules {
        for &ranks in &args.ranks {
            let sizes = std::iter::successors(Some(4 * ranks), |n| Some(2 * n));
            for microbatches in sizes.take_while(|n| *n <= args.largest) {
                for row in measure(&set, schedule, ranks, microbatches)? {
                    rows += 1;
                    differ += usize::from(row.measured != row.predicted);
                    if args.json {
                        println!("{}", serde_json::to_string(&row)?);
                    } else {
                        print(&row);
                    }
                }
            }
        }
    }
    if !args.json {
        match differ {
            0 => println!("measured == predicted in all {rows} rows, to the byte"),
            _ => println!("measured != predicted in {differ} of {rows} rows"),
        }
    }
    anyhow::ensure!(differ == 0, "{differ} of {rows} measurements are not what was predicted");
    Ok(())
}
