//! Rows as a table on the terminal, and as lines of JSON.

use super::case::Case;
use super::ceiling::Ceilings;
use super::families::Family;
use super::lab::{Row, Timing, Verdict};
use super::predicted::{Predictions, Range};
use anyhow::{Context as _, bail};
use bigmac_gpu::Gpu;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// A row with everything that somebody who finds it a year later has to know.
#[derive(Debug, Serialize)]
struct Line<'a> {
    family: &'a str,
    op: &'a str,
    pass: &'a str,
    shape: String,
    place: &'a str,
    dtype: String,
    variant: Option<u32>,
    variant_name: Option<&'a str>,
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// Relative to the norm of the reference.
    error: Option<f64>,
    #[serde(flatten)]
    timing: Option<&'a Timing>,
    flops: Option<f64>,
    bytes: f64,
    tflop_per_s: Option<f64>,
    gb_per_s: Option<f64>,
    /// Of the ceiling.
    share: Option<f64>,
    /// What the share is of.
    ceiling: Option<&'static str>,
    /// The rate that was expected, in the unit of the one that bounds the case.
    predicted: Option<Range>,
    peer_missing: Option<&'a str>,
    device: &'a str,
    target: &'a str,
    date: String,
    command: &'a str,
}

/// Where rows go.
#[derive(Debug)]
pub struct Report {
    device: String,
    target: String,
    command: String,
    json: bool,
    file: Option<File>,
    /// The shape whose heading was printed last.
    heading: String,
    right: usize,
    missing: usize,
    wrong: Vec<String>,
}

impl Report {
    /// A report on a device, as JSON on the terminal or as a table, and as JSON at the end of a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(gpu: &Gpu, json: bool, out: Option<&Path>) -> anyhow::Result<Report> {
        let file = out.map(|path| {
            let file = File::options().create(true).append(true).open(path);
            file.with_context(|| format!("cannot write to {}", path.display()))
        });
        Ok(Report {
            device: gpu.driver().name(),
            target: gpu.driver().target().to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            json,
            file: file.transpose()?,
            heading: String::new(),
            right: 0,
            missing: 0,
            wrong: Vec::new(),
        })
    }

    /// Says something that is not a row.
    pub fn note(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    /// What stands above all rows.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub fn begin(&mut self, ceilings: &Ceilings, timed: bool) -> anyhow::Result<()> {
        self.note(&format!("{} ({})", self.device, self.target));
        if !timed {
            self.note("everything is checked against the CPU, and nothing is timed: this device runs kernels on the CPU");
            return Ok(());
        }
        if let Some(bytes) = ceilings.bytes {
            self.note(&format!("a copy on the device moves {:.0} GB/s, read and written", bytes / 1e9));
        }
        for (dtype, flops) in [("bf16", &ceilings.bf16), ("f32", &ceilings.f32)] {
            if let Some(flops) = flops {
                self.note(&format!("{dtype} products: {:.0} TFLOP/s by {}", flops.rate / 1e12, flops.source));
            }
        }
        self.note(
            "median time (quartiles) of a run; its rate, and the share of the ceiling; PyTorch's time, and how many times as fast ours is (quartiles); error",
        );
        Ok(())
    }

    /// Takes a row.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub fn row(
        &mut self,
        family: &Family,
        case: &Case,
        row: Row,
        ceilings: &Ceilings,
        predictions: &Predictions,
    ) -> anyhow::Result<()> {
        let median = row.timing.as_ref().map(|t| t.seconds.median);
        let per_second = |amount: f64| median.map(|seconds| amount / seconds);
        let tflop_per_s = case.flops.and_then(per_second).map(|rate| rate / 1e12);
        let gb_per_s = per_second(row.bytes).map(|rate| rate / 1e9);
        let (share, ceiling) = match case.flops {
            Some(_) => {
                let ceiling = ceilings.flops(case.dtype);
                (tflop_per_s.zip(ceiling).map(|(r, c)| r * 1e12 / c.rate), ceiling.map(|c| c.source))
            }
            None => (gb_per_s.zip(ceilings.bytes).map(|(r, c)| r * 1e9 / c), ceilings.bytes.map(|_| "copy")),
        };
        let line = Line {
            family: family.name,
            op: case.op,
            pass: case.pass,
            shape: case.shape(),
            place: case.place,
            dtype: case.dtype.to_string(),
            variant: row.variant.as_ref().map(|v| v.number),
            variant_name: row.variant.as_ref().map(|v| v.name.as_str()),
            verdict: &row.verdict,
            error: row.error,
            timing: row.timing.as_ref(),
            flops: case.flops,
            bytes: row.bytes,
            tflop_per_s,
            gb_per_s,
            share,
            ceiling: ceiling.filter(|_| share.is_some()),
            predicted: predictions.of(case).filter(|_| row.variant.is_none()),
            peer_missing: row.missing.as_deref(),
            device: &self.device,
            target: &self.target,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: &self.command,
        };
        let text = serde_json::to_string(&line)?;
        if let Some(file) = &mut self.file {
            writeln!(file, "{text}").context("cannot write to the file of --out")?;
        }
        let heading = format!("{} {} ({}), {}", family.name, line.shape, case.place, line.dtype);
        let table = cells(&line);
        let name = format!("{} {} {} {}", case.op, case.pass, line.shape, line.dtype);
        if self.json {
            println!("{text}");
        } else {
            if heading != self.heading {
                println!("\n{heading}");
                self.heading = heading;
            }
            println!("{table}");
        }
        match &row.verdict {
            Verdict::Right => self.right += 1,
            Verdict::Refused(_) => {}
            Verdict::NoKernel => self.missing += 1,
            Verdict::Wrong(_) | Verdict::Failed(_) => self.wrong.push(name),
        }
        Ok(())
    }

    /// Sums up.
    ///
    /// # Errors
    /// When a kernel was wrong or failed.
    pub fn end(self) -> anyhow::Result<()> {
        self.note(&format!(
            "\n{} right, {} wrong, {} without a kernel",
            self.right,
            self.wrong.len(),
            self.missing
        ));
        if self.wrong.is_empty() {
            return Ok(());
        }
        bail!("{} kernels are wrong or failed: {}", self.wrong.len(), self.wrong.join(", "))
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}

fn cells(line: &Line<'_>) -> String {
    let variant = line.variant.map_or(String::new(), |n| format!(" #{n}"));
    let name = format!("{} {}{variant}", line.op, line.pass);
    let rest = match line.verdict {
        Verdict::Right => timed(line),
        Verdict::Wrong(reason) => format!("WRONG: {reason}"),
        Verdict::Failed(reason) => format!("FAILED: {reason}"),
        Verdict::Refused(reason) => format!("not here: {reason}"),
        Verdict::NoKernel => "no kernel: the operator runs on the CPU only".into(),
    };
    let name = match line.variant_name {
        Some(variant) => format!("{name} {variant}"),
        None => name,
    };
    format!("  {name:<36} {rest}")
}

fn timed(line: &Line<'_>) -> String {
    let error = line.error.map_or(String::new(), |e| format!("error {e:.0e}"));
    let Some(timing) = line.timing else { return format!("right, {error}") };
    let rate = match (line.tflop_per_s, line.gb_per_s) {
        (Some(rate), _) => format!("{rate:.0} TFLOP/s"),
        (None, Some(rate)) => format!("{rate:.0} GB/s"),
        (None, None) => String::new(),
    };
    let share = line.share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share));
    let predicted = line.predicted.map_or(String::new(), |r| format!(" (predicted {} to {})", r.low, r.high));
    let seconds = &timing.seconds;
    let quartiles = format!("({} to {})", duration(seconds.lower), duration(seconds.upper));
    let peer = match (&timing.peer_seconds, &timing.ratio) {
        (Some(theirs), Some(r)) => {
            format!(
                "PyTorch {} | x {:.2} ({:.2} to {:.2})",
                duration(theirs.median),
                r.median,
                r.lower,
                r.upper
            )
        }
        _ => line.peer_missing.map_or(String::new(), |reason| format!("no twin: {reason}")),
    };
    let waits = if timing.waits_for_launches { " | waits for launches" } else { "" };
    format!(
        "{:>9} {quartiles} | {rate}{predicted} {share} | {peer} | {error}{waits}",
        duration(seconds.median)
    )
}

/// Prints what cases there are.
pub fn list(cases: &[(&'static Family, Case)]) {
    let mut last = ("", String::new());
    for (family, case) in cases {
        if family.name != last.0 {
            println!("{}: {}", family.name, family.dims.join("x"));
            last = (family.name, String::new());
        }
        let shape = case.shape();
        if shape != last.1 {
            println!("  {shape} ({})", case.place);
            let here = cases.iter().filter(|(f, c)| f.name == family.name && c.shape() == shape);
            let ops: Vec<String> = here.map(|(_, c)| format!("{} {}", c.op, c.pass)).collect();
            println!("    {}", ops.join(", "));
            last.1 = shape;
        }
    }
}
