//! How long steps take.

use crate::execute::DeviceMark;
use bigmac_runtime::{Context, Result};
use std::sync::Arc;
use std::time::Instant;

/// Takes the times of steps, one after the other: on the CPU the host's from a step's beginning to its end; on a GPU
/// the device's, from the end of one step to the end of the next, or from where it was started after a pause.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    began: Option<Instant>,
    last: Option<Arc<DeviceMark>>,
}

/// The time of a step.
#[derive(Debug)]
pub(super) enum Lap {
    /// On the CPU.
    Host(Instant),
    /// Between two marks of a device.
    Device(Arc<DeviceMark>, Arc<DeviceMark>),
}

impl Stopwatch {
    /// A step begins.
    ///
    /// # Errors
    /// Those of the device.
    pub fn begin(&mut self, ctx: &Context) -> Result<()> {
        self.began = Some(Instant::now());
        if let (Some(gpu), None) = (ctx.gpu(), &self.last) {
            self.last = Some(Arc::new(DeviceMark::new(gpu)?));
        }
        Ok(())
    }

    /// The step's work has been queued.
    ///
    /// # Errors
    /// Those of the device.
    pub fn end(&mut self, ctx: &Context) -> Result<Lap> {
        let Some((gpu, last)) = ctx.gpu().zip(self.last.take()) else {
            return Ok(Lap::Host(self.began.unwrap_or_else(Instant::now)));
        };
        let end = Arc::new(DeviceMark::new(gpu)?);
        self.last = Some(end.clone());
        Ok(Lap::Device(last, end))
    }

    /// The time until the next step begins is not counted.
    pub fn pause(&mut self) {
        self.last = None;
    }
}

impl Lap {
    /// Seconds: on the CPU until now; on a GPU until the step's end, which is waited for.
    ///
    /// # Errors
    /// Those of the device.
    pub fn seconds(&self) -> Result<f64> {
        match self {
            Lap::Host(began) => Ok(began.elapsed().as_secs_f64()),
            Lap::Device(from, to) => from.seconds_to(to),
        }
    }
}
