//! The device under test, and what tests share.

use anyhow::ensure;
use bigmac_kernels::check::{float_tensor, random};
use bigmac_runtime::gpu::Gpu;
use bigmac_runtime::{Context, DType, Device, Tensor};

/// How a test ended that didn't fail.
#[derive(Debug)]
pub enum Outcome {
    /// It did what is said.
    Passed(String),
    /// It couldn't be run here, and why.
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

/// Checks that the norm of the error is within `allowed` of that of what is wanted, and no element is off by more than eight times as much
/// of its magnitude and the usual one.
///
/// # Errors
/// When it isn't, by how much.
pub fn close(name: &str, given: &[f64], wanted: &[f64], allowed: f64) -> anyhow::Result<()> {
    bigmac_tests::parity::close(name, given, wanted, allowed)?;
    let usual = (wanted.iter().map(|w| w * w).sum::<f64>() / wanted.len().max(1) as f64).sqrt();
    let far = given.iter().zip(wanted).position(|(g, w)| (g - w).abs() > 8.0 * allowed * (w.abs() + usual));
    if let Some(at) = far {
        anyhow::bail!("{name}[{at}] is {}, wanted {}", given[at], wanted[at]);
    }
    ensure!(given.iter().all(|g| g.is_finite()), "{name} isn't finite");
    Ok(())
}
