//! The lab: every operator's kernels, checked and timed at the shapes of real models, beside PyTorch.

mod case;
mod ceiling;
mod clock;
mod compare;
mod data;
mod families;
mod lab;
mod operator;
mod peer;
mod predicted;
mod quick;
mod report;

use anyhow::{Context as _, bail, ensure};
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, DType, Device};
use case::Case;
use ceiling::{Ceilings, Flops};
use clap::Args;
use data::Noise;
use families::{FAMILIES, Family};
use lab::{Effort, Lab};
use peer::Torch;
use predicted::Predictions;
use report::Report;
use std::path::PathBuf;

/// Bytes of each of the two buffers whose copy is the ceiling of memory: far more than caches hold.
const COPIED: usize = 1 << 30;
/// Shape that products' ceilings are measured at.
const PRODUCT: [usize; 3] = [8192; 3];
const PRODUCT_SAMPLES: usize = 5;
/// Samples of each side.
const SAMPLES: u32 = 9;

/// Check the kernels against the CPU, then time them beside PyTorch.
///
/// Every kernel is run twice and compared with its reference before it is timed; a wrong one is reported and not
/// timed. Times are between marks on the device, medians of samples of 20 ms or more; small data is rotated over more
/// memory than caches hold. Shares are of what a copy on the same device moves (bytes read and written), or, for
/// products, of cuBLAS at 8192x8192x8192 where PyTorch is there, and of the data sheet where it is not. On the device
/// 'replay' everything is checked and nothing timed.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  BIGMAC_PYTHON=venv/bin/python cargo run --release -p bigmac-benches --bin bigmac-bench -- kernels --op linear,rms_norm --out kernels.jsonl"
)]
pub struct Kernels {
    /// Operators, or families of them (see --list); every one if left out.
    #[arg(long, value_delimiter = ',')]
    op: Vec<String>,
    /// Numbers of variants, for operators that have several; every one if left out.
    #[arg(long, value_delimiter = ',')]
    variant: Vec<u32>,
    /// Shapes such as 8192x4096, instead of the listed ones; --list says what the extents are.
    #[arg(long, value_delimiter = ',', value_parser = shape)]
    shape: Vec<Shape>,
    /// Where to run: cuda, cuda:N or replay.
    #[arg(long, default_value = "cuda")]
    device: Device,
    /// Dtypes of activations and weights: bf16, f32.
    #[arg(long, value_delimiter = ',', default_value = "bf16", value_parser = dtype)]
    dtype: Vec<DType>,
    /// Small, ragged shapes: for the device replay, which needs hours for real ones.
    #[arg(long)]
    small: bool,
    /// One or two shapes of each family, compared in part and timed for half as long: for a device that is there for
    /// minutes only.
    #[arg(long, conflicts_with_all = ["small", "shape"])]
    quick: bool,
    /// Measure what each operator chooses by itself, and no variant beside it.
    #[arg(long, conflicts_with = "variant")]
    choice: bool,
    /// Time a replay too: its times mean nothing, and the lab is tested with them.
    #[arg(long, hide = true)]
    time_replay: bool,
    /// Samples of each side; they take turns.
    ///
    /// [default: 9; with --quick 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Leave PyTorch out.
    #[arg(long)]
    no_peer: bool,
    /// Print one JSON object per row instead of a table.
    #[arg(long)]
    json: bool,
    /// Also append the JSON objects to this file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A file of rates that were expected, to be printed beside those that are measured (benches/predictions has one).
    #[arg(long)]
    predicted: Option<PathBuf>,
    /// Print the families, their operators and shapes, and run nothing.
    #[arg(long)]
    list: bool,
}

/// Extents of a shape.
#[derive(Clone, Debug)]
struct Shape(Vec<usize>);

fn shape(text: &str) -> Result<Shape, String> {
    let extents: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    extents.map(Shape).map_err(|_| "expected extents joined by x, such as 8192x4096".into())
}

fn dtype(text: &str) -> Result<DType, String> {
    let all = [DType::BF16, DType::F32];
    all.into_iter().find(|d| d.to_string() == text).ok_or_else(|| "expected bf16 or f32".into())
}

impl Kernels {
    /// Runs the command.
    ///
    /// # Errors
    /// When the device cannot be opened, nothing fits the arguments, or a kernel is wrong.
    pub fn run(&self) -> anyhow::Result<()> {
        let cases = self.cases()?;
        if self.list {
            report::list(&cases);
            return Ok(());
        }
        if cfg!(debug_assertions) && self.device != Device::Replay {
            eprintln!("built without --release: references on the CPU take their time, kernels do not");
        }
        let predictions = self.predicted.as_deref().map(Predictions::read).transpose()?.unwrap_or_default();
        let gpu = Gpu::open(self.device)?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (ctx, cpu) = (Context::on_gpu(0, threads, &gpu)?, Context::cpu(0, threads)?);
        let timed = self.device != Device::Replay || self.time_replay;
        let mut report = Report::open(&gpu, self.json, self.out.as_deref())?;
        if !predictions.source.is_empty() {
            report.note(&format!("predicted by {}", predictions.source));
        }
        let mut torch = self.torch(&mut report);
        let ceilings = if timed { self.ceilings(&ctx, &gpu, torch.as_mut())? } else { Ceilings::default() };
        report.begin(&ceilings, timed)?;
        let (samples, sample) =
            if self.quick { (quick::SAMPLES, quick::SAMPLE) } else { (SAMPLES, clock::SAMPLE) };
        let samples = if timed { self.samples.unwrap_or(samples) as usize } else { 0 };
        let effort = Effort { samples, sample, choice: self.choice };
        // Where nothing is timed, a second set is there to see that sets do not get in each other's way.
        let noise = Noise::new(&cpu, (!timed).then_some(2))?;
        let mut lab = Lab::new(&gpu, [&ctx, &cpu], &noise, torch, effort);
        for (family, case) in &cases {
            for row in lab.measure(family, case, &self.variant)? {
                report.row(family, case, row, &ceilings, &predictions)?;
            }
        }
        report.end()
    }

    /// What the arguments ask for.
    fn cases(&self) -> anyhow::Result<Vec<(&'static Family, Case)>> {
        let wanted = |family: &Family, case: &Case| {
            self.op.is_empty() || self.op.iter().any(|op| op == family.name || op == case.op)
        };
        let mut cases = Vec::new();
        for &dtype in self.dtype.iter().filter(|_| self.quick) {
            cases.extend(quick::cases(dtype)?.into_iter().filter(|(family, case)| wanted(family, case)));
        }
        for family in FAMILIES.iter().filter(|_| !self.quick) {
            for &dtype in &self.dtype {
                for (place, extents) in self.shapes(family) {
                    let here = if self.shape.is_empty() || self.op.iter().any(|op| op == family.name) {
                        family.at(&extents, place, dtype)?
                    } else {
                        // Operators are found by their cases, and a shape may be none of this family's.
                        family.at(&extents, place, dtype).unwrap_or_default()
                    };
                    let here = here.into_iter().filter(|case| wanted(family, case));
                    cases.extend(here.map(|case| (family, case)));
                }
            }
        }
        ensure!(
            self.shape.is_empty() || !self.op.is_empty(),
            "--shape needs --op: extents mean something else for every family; --list prints them"
        );
        if cases.is_empty() {
            let names: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
            bail!(
                "no operator is called {:?} or takes these shapes; families are {names:?}, and --list prints their operators",
                self.op
            );
        }
        Ok(cases)
    }

    fn shapes(&self, family: &Family) -> Vec<(&'static str, Vec<usize>)> {
        if !self.shape.is_empty() {
            return self.shape.iter().map(|Shape(extents)| ("asked for", extents.clone())).collect();
        }
        if self.small {
            return family.small.iter().map(|extents| ("small", extents.to_vec())).collect();
        }
        family.real.iter().map(|(place, extents)| (*place, extents.to_vec())).collect()
    }

    /// PyTorch's side, or why it is missing.
    fn torch(&self, report: &mut Report) -> Option<Torch> {
        if self.no_peer {
            return None;
        }
        match Torch::start(self.device) {
            Ok(torch) => {
                report.note(&format!("PyTorch {} on {}", torch.hello.torch, torch.hello.device));
                Some(torch)
            }
            Err(error) => {
                report.note(&format!("PyTorch is not there, so nothing is set beside it: {error:#}"));
                None
            }
        }
    }

    fn ceilings(&self, ctx: &Context, gpu: &Gpu, torch: Option<&mut Torch>) -> anyhow::Result<Ceilings> {
        let copied = if self.device == Device::Replay { 1 << 20 } else { COPIED };
        let mut ceilings = Ceilings::measure(ctx, gpu, copied)?;
        let Some(torch) = torch else { return Ok(ceilings) };
        let product = if self.device == Device::Replay { [64; 3] } else { PRODUCT };
        for &dtype in &self.dtype {
            let family = &families::LINEAR;
            let case = family.at(&product, "ceiling", dtype)?.into_iter().next().context("a product")?;
            let mut best: Option<f64> = None;
            for _ in 0..PRODUCT_SAMPLES {
                if let (Ok(seconds), Some(flops)) = (torch.seconds(family, &case, 1, 0)?, case.flops) {
                    best = Some(best.unwrap_or(0.0).max(flops / seconds));
                }
            }
            let measured = best.map(|rate| Flops { rate, source: "cuBLAS" });
            match dtype {
                DType::BF16 => ceilings.bf16 = measured.or(ceilings.bf16),
                _ => ceilings.f32 = measured.or(ceilings.f32),
            }
        }
        torch.free()?;
        Ok(ceilings)
    }
}
