//! Time on a device.

use anyhow::ensure;
use bigmac_gpu::Gpu;
use std::time::Instant;

/// Device time that a sample takes at least: next to it, what a mark takes is nothing.
pub const SAMPLE: f64 = 0.02;
const MOST_RUNS: usize = 20_000;

/// Measures runs between marks among a device's work.
#[derive(Debug)]
pub struct Clock<'a> {
    gpu: &'a Gpu,
    /// Seconds of a sample, at least.
    sample: f64,
}

/// What a batch of runs took, per run.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Seconds on the device.
    pub seconds: f64,
    /// Seconds until the last run was queued.
    pub issued: f64,
}

impl<'a> Clock<'a> {
    /// A clock of that device, whose samples take at least `sample` seconds.
    pub fn new(gpu: &'a Gpu, sample: f64) -> Clock<'a> {
        Clock { gpu, sample }
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self) -> anyhow::Result<()> {
        Ok(self.gpu.driver().synchronize()?)
    }

    /// Time of `runs` calls of `run`, which get the number of the call.
    ///
    /// # Errors
    /// The driver's, and those of `run`.
    pub fn take(
        &self,
        runs: usize,
        mut run: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<Taken> {
        let driver = self.gpu.driver();
        driver.synchronize()?;
        let began = Instant::now();
        let from = driver.mark()?;
        for number in 0..runs {
            run(number)?;
        }
        let to = driver.mark()?;
        let issued = began.elapsed().as_secs_f64();
        let seconds = driver.seconds_between(from, to)?;
        driver.forget(from);
        driver.forget(to);
        ensure!(seconds > 0.0, "the device's marks are {seconds} s apart after {runs} runs");
        Ok(Taken { seconds: seconds / runs as f64, issued: issued / runs as f64 })
    }

    /// How many runs of so many seconds make a sample.
    pub fn repeats(&self, seconds: f64) -> usize {
        ((1.2 * self.sample / seconds.max(1e-9)).ceil() as usize).clamp(1, MOST_RUNS)
    }

    /// How many runs make a sample. Runs it a few times: caches, clocks and compiled kernels are warm afterwards.
    ///
    /// # Errors
    /// As [`Clock::take`].
    pub fn runs(&self, mut run: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<usize> {
        let mut runs = 1;
        loop {
            // The shorter of two: other processes interrupt this one, and what is first of its kind takes long.
            let mut seconds = || anyhow::Ok(self.take(runs, &mut run)?.seconds * runs as f64);
            let taken = seconds()?.min(seconds()?);
            if taken >= self.sample || runs >= MOST_RUNS {
                return Ok(runs);
            }
            let wanted = (1.2 * self.sample / taken * runs as f64).ceil();
            runs = (wanted as usize).clamp(runs + 1, 10 * runs.max(10)).min(MOST_RUNS);
        }
    }
}
