//! The other side of a benchmark: a Python process that runs PyTorch, one line of JSON to a question and one to its
//! answer.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The variable that names the Python interpreter which has PyTorch.
pub const INTERPRETER: &str = "BIGMAC_PYTHON";

/// The Python interpreter that is asked for PyTorch: the one that [`INTERPRETER`] names, else `python3`.
pub fn interpreter() -> String {
    std::env::var(INTERPRETER).unwrap_or_else(|_| "python3".into())
}

/// Checks that `python` has PyTorch.
///
/// # Errors
/// What it says where it has not.
pub fn missing(python: &str) -> anyhow::Result<()> {
    let found = Command::new(python).args(["-c", "import torch"]).output();
    let found =
        found.with_context(|| format!("cannot run {python}; name an interpreter in {INTERPRETER}"))?;
    if found.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&found.stderr);
    bail!(
        "{python}: {}; name an interpreter that has it in {INTERPRETER}",
        said.lines().last().unwrap_or_default()
    )
}

/// A script that is running. It ends with its handle.
#[derive(Debug)]
pub struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// Starts the text of a script; what it writes to its standard error goes to ours.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(python: &str, text: &str, args: &[&str]) -> anyhow::Result<Script> {
        let mut child = Command::new(python)
            .args(["-c", text])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {python}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{python} was started without pipes");
        };
        Ok(Script { child, input, output: BufReader::new(output) })
    }

    /// Sends a line, and waits for the line that answers it.
    ///
    /// # Errors
    /// When the process has ended, or answers something else.
    pub fn ask<T: for<'a> Deserialize<'a>>(&mut self, question: &impl Serialize) -> anyhow::Result<T> {
        let question = serde_json::to_string(question)?;
        // Where it has ended, reading says so too.
        let sent = writeln!(self.input, "{question}");
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 || sent.is_err() {
            bail!("PyTorch's side ended early; what it said is above");
        }
        serde_json::from_str(&line).with_context(|| format!("PyTorch's side answered {line:?}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // An error here would have no reader, and nothing is lost with the process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
