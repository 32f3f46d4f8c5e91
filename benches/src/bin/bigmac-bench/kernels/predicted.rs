//! What rows were expected to give before anything was measured, from a file.

use super::case::Case;
use anyhow::Context as _;
use bigmac_runtime::fs::read_text;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A range of rates: TFLOP/s for a case that operations bound, else GB/s.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// One line of the file. It is for every shape of the operator where it names none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prediction {
    op: String,
    pass: String,
    shape: Option<String>,
    low: f64,
    high: f64,
}

/// All predictions of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictions {
    /// Where they are from.
    #[serde(default)]
    pub source: String,
    #[serde(default, rename = "row")]
    rows: Vec<Prediction>,
}

impl Predictions {
    /// Reads a TOML file: `source`, and a table `[[row]]` for each of op, pass, shape (optional), low, high.
    ///
    /// # Errors
    /// When it cannot be read or is not of that form.
    pub fn read(path: &Path) -> anyhow::Result<Predictions> {
        let text = read_text(path);
        let text = text.with_context(|| format!("cannot read the predictions in {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} does not hold predictions", path.display()))
    }

    /// What was expected of a case, by its operator's own choice of a kernel.
    pub fn of(&self, case: &Case) -> Option<Range> {
        let shape = case.shape();
        let fits = |row: &&Prediction| {
            row.op == case.op && row.pass == case.pass && row.shape.as_ref().is_none_or(|s| *s == shape)
        };
        let found = self.rows.iter().filter(fits).max_by_key(|row| row.shape.is_some());
        found.map(|row| Range { low: row.low, high: row.high })
    }
}
