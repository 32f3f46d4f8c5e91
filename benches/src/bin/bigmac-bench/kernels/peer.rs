//! The same operators through PyTorch, in a process that takes turns with ours.

use super::case::Case;
use super::families::Family;
use anyhow::Context as _;
use bigmac_benches::python::{self, Script};
use bigmac_runtime::Device;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const SCRIPT: &str = include_str!("../../../../peers/kernels.py");

/// What the script says first.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// PyTorch's version.
    pub torch: String,
    /// The device it runs on.
    pub device: String,
}

/// What it answers: the seconds of a run, or why there are none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Seconds(f64),
    Missing(String),
}

/// PyTorch's side.
#[derive(Debug)]
pub struct Torch {
    script: Script,
    /// What it is.
    pub hello: Hello,
}

impl Torch {
    /// Starts it beside `device`; on the CPU where that is replayed.
    ///
    /// # Errors
    /// If PyTorch is not installed, or cannot use the device.
    pub fn start(device: Device) -> anyhow::Result<Torch> {
        let python = python::interpreter();
        let device = match device {
            Device::Cuda(ordinal) => format!("cuda:{ordinal}"),
            Device::Cpu | Device::Replay => "cpu".into(),
        };
        let mut script = Script::start(&python, SCRIPT, &["--device", &device])?;
        // Importing PyTorch takes seconds, so whether it is there is asked of the process that stays.
        let hello = script.ask(&json!({ "op": "hello" }));
        let hello = hello.with_context(|| {
            format!("{python} has no PyTorch; name an interpreter that has it in {}", python::INTERPRETER)
        })?;
        Ok(Torch { script, hello })
    }

    /// Seconds of a run of the case's twin: the mean of `repeats` runs, or of as many as make a sample where that is 0.
    ///
    /// # Errors
    /// Outside, where its process has ended; inside, why it has nothing like the case.
    pub fn seconds(
        &mut self,
        family: &Family,
        case: &Case,
        sets: usize,
        repeats: usize,
    ) -> anyhow::Result<Result<f64, String>> {
        let Some(more) = &case.peer else { return Ok(Err("PyTorch has nothing like it".into())) };
        let extents = family.dims.iter().zip(&case.extents);
        let shape: Map<String, Value> = extents.map(|(name, &n)| ((*name).to_owned(), n.into())).collect();
        let dtype = case.dtype.to_string();
        let answer = self.script.ask(&json!({
            "op": case.op, "pass": case.pass, "shape": shape, "dtype": dtype, "more": more, "sets": sets, "repeats": repeats,
        }))?;
        Ok(match answer {
            Answer::Seconds(seconds) => Ok(seconds),
            Answer::Missing(reason) => Err(reason),
        })
    }

    /// Frees what the last case holds.
    ///
    /// # Errors
    /// Where its process has ended.
    pub fn free(&mut self) -> anyhow::Result<()> {
        let Value::Null = self.script.ask(&json!({ "op": "free" }))? else { return Ok(()) };
        Ok(())
    }
}
