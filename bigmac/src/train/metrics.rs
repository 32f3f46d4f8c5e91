//! What a run reports of each step, and the file it goes to.

use super::TrainError;
use super::numbers::Totals;
use bigmac_runtime::Error;
use bigmac_runtime::fs::{read_text, write_atomically};
use bigmac_schedule::{ModuleKind, PerModule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file in a run's directory.
pub(super) const FILE: &str = "metrics.jsonl";

/// What all lines have, whichever version wrote them.
#[derive(Deserialize)]
struct Numbered {
    step: u64,
}

/// Whether a directory has metrics of a run, if only of one that failed before its first step.
pub(super) fn exist(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// Gives metrics that a directory holds another name, and says which; none where it holds none.
///
/// # Errors
/// [`TrainError::Runtime`] when they cannot be renamed.
pub(super) fn set_aside(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    let path = folder.join(FILE);
    if !std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return Ok(None);
    }
    let mut names = (1u32..).map(|number| folder.join(format!("metrics.{number}.jsonl")));
    let Some(kept) = names.find(|path| path.symlink_metadata().is_err()) else { return Ok(None) };
    std::fs::rename(&path, &kept).map_err(|e| Error::io(&path, e))?;
    Ok(Some(kept))
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 0.
    pub step: u64,
    /// Token loss plus weighted drawing loss.
    pub loss: f64,
    /// Cross-entropy per target token, in nats.
    pub token_loss: f64,
    /// Squared error per drawn element, times lambda.
    pub drawing_loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Seconds of the step: on the CPU by the host's clock, from its beginning to this report; on a GPU by the
    /// device's, from the end of the step before to its own end, time in which the device had nothing to do included.
    /// What lies between steps (checkpoints, samples, a timeline) is not counted.
    pub seconds: f64,
    /// Samples of the step.
    pub samples: usize,
    /// LLM positions of the step.
    pub tokens: usize,
    /// Images encoded and drawn in the step.
    pub images: usize,
    /// Pictures that could not be used, and were left out with their samples (`data.on_error = "skip"`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: usize,
    /// LLM positions per second.
    pub tokens_per_second: f64,
    /// Images encoded and drawn per second.
    pub images_per_second: f64,
    /// Per module, the most bytes of saved activations on any rank.
    pub saved_bytes: BTreeMap<String, usize>,
    /// Per rank and memory scope, the most bytes at once in the step, workspace included.
    pub peak_bytes: Vec<BTreeMap<String, usize>>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl StepReport {
    /// Adds what the end of the step told.
    pub(super) fn finish(&mut self, totals: &Totals, seconds: f64) {
        self.loss = totals.token_loss + totals.drawing_loss;
        self.token_loss = totals.token_loss;
        self.drawing_loss = totals.drawing_loss;
        self.grad_norm = totals.grad_norm;
        self.seconds = seconds;
        self.tokens_per_second = self.tokens as f64 / seconds;
        self.images_per_second = self.images as f64 / seconds;
    }

    /// Takes up what a rank held.
    pub fn add_saved(&mut self, saved: PerModule<usize>) {
        for kind in ModuleKind::ALL {
            let most = self.saved_bytes.entry(kind.name().to_owned()).or_default();
            *most = saved[kind].max(*most);
        }
    }
}

/// Appends lines to `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file in the run's directory, and cuts what was written from `step` on: a resumed run writes that
    /// again.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] when the file cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        Self::copy(Some(folder), folder, step)?;
        let path = folder.join(FILE);
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(MetricsFile { path, file })
    }

    /// Writes the metrics of `run`, where there are any, up to `step` into the directory `to`.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] when a file cannot be read or written.
    pub(super) fn copy(run: Option<&Path>, to: &Path, step: u64) -> Result<(), TrainError> {
        let old = run.map(|run| run.join(FILE)).map_or(Ok(String::new()), |path| match read_text(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(|e| Error::io(&path, e)),
        })?;
        let lines = old.lines().count();
        let is_kept = |(number, line): &(usize, &str)| match serde_json::from_str::<Numbered>(line) {
            Ok(report) => report.step < step,
            // A last line that was cut short by a crash is left out; whatever else stands there is not ours to judge.
            Err(_) => number + 1 < lines,
        };
        let kept = old.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).filter(is_kept);
        let kept: String = kept.flat_map(|(_, line)| [line, "\n"]).collect();
        Ok(write_atomically(&to.join(FILE), |w| w.write_all(kept.as_bytes()))?)
    }

    /// Makes what was written last, whatever happens to the machine.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] of the file system.
    pub(super) fn sync(&self) -> Result<(), TrainError> {
        Ok(self.file.sync_data().map_err(|e| Error::io(&self.path, e))?)
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] when it cannot be written.
    pub fn write(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(report).map_err(|e| Error::format(&self.path, e.to_string()))?;
        line.push('\n');
        Ok(self.file.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, e))?)
    }
}
