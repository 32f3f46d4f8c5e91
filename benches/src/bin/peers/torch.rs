//! The other side: a Python process that trains the same model, a line of JSON to a turn.

use bigmac::data::{PackedMicrobatch, StepPlan};
use bigmac::train::Session;
use bigmac_benches::python::Script;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::Range;
use std::time::Duration;

const SCRIPT: &str = include_str!("../../../peers/torch_step.py");
/// Long enough for other threads to have come to rest before a turn begins.
const SETTLE: Duration = Duration::from_millis(50);

/// A sample as the script takes it; rows count from the sample's first token.
#[derive(Debug, Serialize)]
struct Sample {
    tokens: Vec<u32>,
    /// The next token, or negative where it carries no loss.
    targets: Vec<i32>,
    /// Rows that each image takes.
    images: Vec<[usize; 2]>,
    /// Rows from its first that a drawing is made from; 0: nothing is drawn.
    cond: usize,
}

/// What the script says once it is ready.
#[derive(Debug, Deserialize)]
pub struct Ready {
    /// PyTorch's version.
    pub torch: String,
    /// Its model's parameters.
    pub parameters: usize,
    /// How it lays out text: `packed` or `padded`.
    pub layout: String,
    /// Its loss on the first step's samples, before it has learned anything.
    pub loss: f64,
}

/// The process.
#[derive(Debug)]
pub struct Torch {
    script: Script,
    /// What it is.
    pub ready: Ready,
}

impl Torch {
    /// Starts it with the session's model and `threads` threads.
    ///
    /// # Errors
    /// When it does not start, or ends; what it says goes to standard error.
    pub fn start(python: &str, session: &Session, threads: usize) -> anyhow::Result<Torch> {
        let mut script = Script::start(python, SCRIPT, &[])?;
        let config = &session.config;
        let mut model = serde_json::to_value(&config.model)?;
        model["vocabulary"] = json!(session.shape.llava.text.vocab_size);
        let trial = samples(&session.planner.step(0));
        let job = json!({ "threads": threads, "model": model, "train": config.train, "trial": trial });
        let ready = script.ask(&job)?;
        Ok(Torch { script, ready })
    }

    /// Trains on these steps; seconds of each.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn turn(&mut self, session: &Session, steps: Range<u64>) -> anyhow::Result<Vec<f64>> {
        std::thread::sleep(SETTLE);
        let batches: Vec<Vec<Sample>> = steps.map(|step| samples(&session.planner.step(step))).collect();
        let seconds = self.script.ask(&batches)?;
        std::thread::sleep(SETTLE);
        Ok(seconds)
    }
}

/// A step's samples, microbatch by microbatch.
fn samples(plan: &StepPlan) -> Vec<Sample> {
    plan.microbatches.iter().flat_map(of_microbatch).collect()
}

fn of_microbatch(load: &PackedMicrobatch) -> impl Iterator<Item = Sample> + '_ {
    load.samples.iter().zip(load.bounds.windows(2)).map(|(&number, bounds)| {
        let (start, end) = (bounds[0], bounds[1]);
        let images = load.images.iter().filter(|image| image.sample == number);
        let draw = load.draws.iter().find(|draw| draw.sample == number);
        Sample {
            tokens: load.tokens[start..end].to_vec(),
            targets: load.targets[start..end].to_vec(),
            images: images.map(|image| [image.rows.start - start, image.rows.end - start]).collect(),
            cond: draw.map_or(0, |draw| draw.cond_rows.len()),
        }
    })
}
