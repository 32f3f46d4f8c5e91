//! When ops began and ended: by the host's clock on the CPU, by marks in the device's own work on a GPU.

use super::mark::DeviceMark;
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, Error, Result};
use std::time::Instant;

/// Takes the spans of a rank's ops, one after the other.
pub(super) struct Clock {
    started: Instant,
    begun: f64,
    spans: Vec<(f64, f64)>,
    gpu: Option<Gpu>,
    /// On a GPU: where it started, then two per op.
    marks: Vec<DeviceMark>,
}

impl Clock {
    /// Begins to count.
    pub fn start(ctx: &Context) -> Result<Self> {
        let gpu = ctx.gpu().cloned();
        let mut clock =
            Clock { started: Instant::now(), begun: 0.0, spans: Vec::new(), gpu, marks: Vec::new() };
        clock.mark()?;
        Ok(clock)
    }

    fn mark(&mut self) -> Result<()> {
        self.marks.extend(self.gpu.as_ref().map(DeviceMark::new).transpose()?);
        Ok(())
    }

    /// An op begins.
    pub fn begin(&mut self) -> Result<()> {
        self.begun = self.started.elapsed().as_secs_f64();
        self.mark()
    }

    /// It has ended, or all of its work has been queued.
    pub fn end(&mut self) -> Result<()> {
        self.spans.push((self.begun, self.started.elapsed().as_secs_f64()));
        self.mark()
    }

    /// Start and end of each op, in seconds since the start; waits for the device.
    pub fn finish(self) -> Result<Vec<(f64, f64)>> {
        if self.gpu.is_none() {
            return Ok(self.spans);
        }
        let Some((first, rest)) = self.marks.split_first() else {
            return Err(Error::argument("clock", "the device's clock was never started"));
        };
        rest.chunks_exact(2)
            .map(|pair| Ok((first.seconds_to(&pair[0])?, first.seconds_to(&pair[1])?)))
            .collect()
    }
}
