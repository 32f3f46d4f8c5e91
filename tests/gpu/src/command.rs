//! `bigmac train` on the device against the CPU.

use crate::bench::{Bench, Outcome};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that names the command, instead of the one beside this program.
const COMMAND: &str = "BIGMAC_COMMAND";
const STEPS: usize = 3;
/// A model that learns nothing in three steps, and runs every module.
const SMALL: [&str; 14] = [
    "data.shapes=40",
    "model.encoder.layers=1",
    "model.encoder.width=24",
    "model.encoder.mlp=48",
    "model.llm.layers=2",
    "model.llm.width=24",
    "model.llm.head_dim=6",
    "model.llm.mlp=48",
    "model.generator.layers=1",
    "model.generator.head_dim=6",
    "model.generator.rope_axes=[2,2,2]",
    "train.batch=2",
    "train.microbatches=1",
    "output.final_samples=1",
];

/// A few steps, a checkpoint, and the evaluation at the end.
///
/// # Errors
/// When the command fails, or its losses are not the CPU's.
pub fn train(bench: &Bench) -> anyhow::Result<Outcome> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("bigmac")));
    let named = std::env::var_os(COMMAND).map(PathBuf::from);
    let Some(command) = named.or(beside).filter(|path| path.is_file()) else {
        return Ok(Outcome::Skipped(format!(
            "the command bigmac was not found beside this program; build it, or name it in {COMMAND}"
        )));
    };
    let folder = tempfile::tempdir()?;
    let device = bench.gpu.device().to_string();
    let mut said = Vec::new();
    for (dtype, allowed) in [("f32", 1e-3), ("bf16", 3e-2)] {
        let wanted = losses(bench, &command, folder.path(), "cpu", dtype)?;
        let given = losses(bench, &command, folder.path(), &device, dtype)?;
        for (given, wanted) in given.iter().zip(&wanted) {
            let off = (given - wanted).abs();
            ensure!(off <= allowed * wanted.abs(), "{dtype}: losses {given:?}, on the CPU {wanted:?}");
        }
        said.push(format!("{dtype} losses {given:.4?}, on the CPU {wanted:.4?}"));
    }
    Ok(Outcome::Passed(said.join("; ")))
}

/// Losses of the steps of a run.
fn losses(
    bench: &Bench,
    command: &Path,
    folder: &Path,
    device: &str,
    dtype: &str,
) -> anyhow::Result<Vec<f64>> {
    let out = folder.join(format!("{}-{dtype}", device.replace(':', "-")));
    let mut run = Command::new(command);
    run.current_dir(folder)
        .args(["train", "--device", device, "--steps", &STEPS.to_string(), "--out"])
        .arg(&out);
    let sizes: &[&str] = if bench.small { &SMALL } else { &["data.shapes=200", "output.final_samples=4"] };
    let dtype = format!("model.dtype={dtype}");
    for setting in sizes.iter().copied().chain([dtype.as_str(), "output.samples=1"]) {
        run.args(["--set", setting]);
    }
    let ended = run.output().with_context(|| format!("cannot run {}", command.display()))?;
    ensure!(ended.status.success(), "{device}: {}", String::from_utf8_lossy(&ended.stderr));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl"))?;
    let losses = metrics.lines().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        line["loss"].as_f64().context("a line of metrics.jsonl has a loss")
    });
    let losses = losses.collect::<anyhow::Result<Vec<f64>>>()?;
    ensure!(losses.len() == STEPS, "{} lines of metrics.jsonl for {STEPS} steps", losses.len());
    Ok(losses)
}
