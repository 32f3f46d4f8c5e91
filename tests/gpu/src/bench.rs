//! The device under test, and what tests share.

use anyhow::ensure;
use bigmac_gpu::{Gpu, GpuError};
use bigmac_kernels::check::{float_tensor, random};
use bigmac_runtime::{Context, DType, Device, Error, Tensor};

/// How a test ended that did not fail.
#[derive(Debug)]
pub enum Outcome {
    /// It did what is said.
    Passed(String),
    /// It could not be run here, and why.
    Skipped(String),
}

/// A device with a context on it, and one on the CPU beside.
#[derive(Debug)]
pub struct Bench {
    /// The device.
    pub gpu: Gpu,
    /// A context on it.
    pub ctx: Context,
    /// The CPU.
    pub cpu: Context,
    /// Whether sizes are for a replay.
    pub small: bool,
}

impl Bench {
    /// Opens the device; with `small`, or on the replay, sizes are small.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(device: Device, small: bool) -> anyhow::Result<Bench> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let gpu = Gpu::open(device)?;
        Ok(Bench {
            ctx: Context::on_gpu(0, threads, &gpu)?,
            cpu: Context::cpu(0, threads)?,
            gpu,
            small: small || device == Device::Replay,
        })
    }

    /// Normal numbers on the device, rounded to `dtype`; the same for the same shape and number.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn normal(&self, shape: &[usize], number: u32, dtype: DType) -> anyhow::Result<Tensor> {
        Ok(float_tensor(&self.ctx, &random(shape, number), shape, dtype)?)
    }
}

/// Checks that the norm of the error is within `allowed` of that of what is wanted, and no element is off by more
/// than eight times as much of its magnitude and the usual one.
///
/// # Errors
/// When it is not, by how much.
pub fn close(name: &str, given: &[f64], wanted: &[f64], allowed: f64) -> anyhow::Result<()> {
    bigmac_tests::parity::close(name, given, wanted, allowed)?;
    let usual = (wanted.iter().map(|w| w * w).sum::<f64>() / wanted.len().max(1) as f64).sqrt();
    let far = given.iter().zip(wanted).position(|(g, w)| (g - w).abs() > 8.0 * allowed * (w.abs() + usual));
    if let Some(at) = far {
        anyhow::bail!("{name}[{at}] is {}, expected {}", given[at], wanted[at]);
    }
    ensure!(given.iter().all(|g| g.is_finite()), "{name} is not finite");
    Ok(())
}

/// What was found wrong so far: a test goes on after a wrong result, so that one run on a borrowed device says all.
#[derive(Debug, Default)]
pub struct Faults {
    count: usize,
    shown: Vec<String>,
}

impl Faults {
    /// Faults that are told in full.
    const SHOWN: usize = 12;

    /// Takes the outcome of one comparison.
    ///
    /// # Errors
    /// One of the driver's: after it nothing on the device can be relied on.
    pub fn take(&mut self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if matches!(error.downcast_ref(), Some(Error::Gpu(GpuError::Driver { .. }))) {
            return Err(error.context(format!("after {} wrong results", self.count)));
        }
        self.count += 1;
        if self.shown.len() < Self::SHOWN {
            self.shown.push(format!("{error:#}"));
        }
        Ok(())
    }

    /// Ends the test.
    ///
    /// # Errors
    /// When anything was wrong: how many results, and the first of them.
    pub fn end(self) -> anyhow::Result<()> {
        ensure!(
            self.count == 0,
            "{} results are wrong:\n        {}",
            self.count,
            self.shown.join("\n        ")
        );
        Ok(())
    }
}
