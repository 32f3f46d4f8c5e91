//! A training step of a model of a billion parameters: tokens per second, MFU, and where its time goes.

mod clock;
mod generator;
mod ideal;
mod ledger;
mod llm;
mod net;
mod report;
mod sizes;
mod trainer;

use anyhow::{Context as _, ensure};
use bigmac::cost::Spread;
use bigmac::profile::processor;
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, DType, Device};
use clap::Args;
use report::Report;
use sizes::{Asked, Sizes};
use std::time::SystemTime;
use trainer::Trainer;

/// Of weights and data.
const SEED: u64 = 1;

/// Train a few steps on random data and print tokens per second, MFU, and the time of every operator.
///
/// Weights, tokens and targets (for a generator latents, hidden states and noise) are random and lie on the device
/// beforehand. Each step is every microbatch forward and backward, the norm of all gradients, clipping and AdamW,
/// without waiting for the device anywhere. Steps are timed as they are, between marks on the device; then one more
/// is observed operator by operator. MFU counts the products that were run by their definition: nothing twice,
/// attention only where queries see keys.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  cargo run --release -p bigmac-benches --bin bigmac-bench -- step --model qwen3-1.7b --tokens 8192\n  cargo run --release -p bigmac-benches --bin bigmac-bench -- step --model mmdit-1b --small --device cpu\n\nJSON is one object: model, framework, sizes, parameters, device, dtype, date, tokens, sequence, microbatches, steps, seconds, tokens_per_second,\npeak, mfu, flops, launches, idle_seconds, issue_seconds, operators: [{operator, phase, calls, seconds, flops, bytes}], bytes,\nideal_bytes, losses, gradient_norms. benches/peers/torch_train.py prints the same of PyTorch."
)]
pub struct Step {
    /// Model: qwen3-1.7b, llama-1b or mmdit-1b, or a file as configs/plan/models has them, of an LLM or a generator
    /// alone.
    #[arg(long, value_name = "NAME|FILE", default_value = "qwen3-1.7b")]
    model: String,
    /// Where to run: cuda, cuda:N, replay or cpu.
    #[arg(long, default_value = "cuda")]
    device: Device,
    /// Tokens of a microbatch [default: 8192; 64 with --small].
    #[arg(long, value_name = "T")]
    tokens: Option<usize>,
    /// Tokens of each packed sequence, for a generator of each drawing [default: 4096, or all of --tokens; 32 with
    /// --small].
    #[arg(long, value_name = "S")]
    sequence: Option<usize>,
    /// Microbatches of a step, whose gradients are added up.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    microbatches: usize,
    /// Steps that are timed.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = positive)]
    steps: usize,
    /// Steps before them: kernels are compiled and clocks settle.
    #[arg(long, value_name = "K", default_value_t = 3)]
    warmup: usize,
    /// Layers, instead of the model's.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Words of the vocabulary, instead of the model's.
    #[arg(long, value_name = "V")]
    vocabulary: Option<usize>,
    /// Shrink every extent, so that a step takes seconds on the CPU and on a replay.
    #[arg(long)]
    small: bool,
    /// Dtype of weights and activations, bf16 or f32; master weights, moments and gradients are f32 [default: bf16 on
    /// a GPU, f32 on the CPU].
    #[arg(long, value_parser = dtype)]
    dtype: Option<DType>,
    /// TFLOP/s that MFU is a share of.
    #[arg(long, value_name = "TFLOPS", default_value_t = 989.0)]
    peak: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a whole number above 0".into())
}

fn dtype(text: &str) -> Result<DType, String> {
    let all = [DType::BF16, DType::F32];
    all.into_iter().find(|d| d.to_string() == text).ok_or_else(|| "expected bf16 or f32".into())
}

impl Step {
    /// Runs the command.
    ///
    /// # Errors
    /// A model or sizes that cannot be, a device that cannot be opened, memory that does not suffice, a loss that is
    /// not finite.
    pub fn run(&self) -> anyhow::Result<()> {
        ensure!(self.peak > 0.0 && self.peak.is_finite(), "--peak {}: give a number above 0", self.peak);
        let sizes = Sizes::new(&Asked {
            model: &self.model,
            small: self.small,
            layers: self.layers,
            vocabulary: self.vocabulary,
            tokens: self.tokens,
            sequence: self.sequence,
            microbatches: self.microbatches,
        })?;
        if cfg!(debug_assertions) && self.device == Device::Cpu {
            eprintln!("built without --release: times on the CPU are those of a slower program");
        }
        let gpu = match self.device {
            Device::Cpu => None,
            device => Some(Gpu::open(device)?),
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let ctx = Context::on(0, threads, gpu.as_ref())?;
        let dtype = self.dtype.unwrap_or(if ctx.is_gpu() { DType::BF16 } else { DType::F32 });
        let mut trainer = Trainer::new(&ctx, &sizes, dtype)?;
        trainer.warm_up(self.warmup)?;
        let timed = trainer.time(self.steps)?;
        let report = Report {
            model: &self.model,
            parameters: trainer.parameters(),
            device: match &gpu {
                Some(gpu) => gpu.driver().name(),
                None => processor().unwrap_or_else(|| "cpu".into()),
            },
            dtype: dtype.to_string(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            peak: self.peak * 1e12,
            seconds: Spread::of(timed.seconds.iter().copied()).context("no step was timed")?,
            timed,
            observed: trainer.observe()?,
            ideal_bytes: ideal::bytes(&sizes, dtype)?,
            sizes: &sizes,
        };
        if self.json {
            println!("{}", report.json());
        } else {
            print!("{}", report.text());
        }
        Ok(())
    }
}
