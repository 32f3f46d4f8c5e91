//! When ops began and ended: by the host's clock on the CPU, by marks in the device's own work on a GPU.

use bigmac_gpu::{Gpu, Mark};
use bigmac_runtime::{Context, Error, Result};
use std::time::Instant;

/// Takes the spans of a rank's ops, one after the other.
pub(super) struct Clock {
    started: Instant,
    begun: f64,
    spans: Vec<(f64, f64)>,
    marks: Option<Marks>,
}

/// Marks of a device: where it started, then two per op. Given back when dropped.
struct Marks {
    gpu: Gpu,
    list: Vec<Mark>,
}

impl Marks {
    fn add(&mut self) -> Result<()> {
        self.list.push(self.gpu.driver().mark().map_err(|e| self.gpu.error("clock", e))?);
        Ok(())
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        self.list.iter().for_each(|&mark| self.gpu.driver().forget(mark));
    }
}

impl Clock {
    /// Begins to count.
    pub fn start(ctx: &Context) -> Result<Self> {
        let mut marks = ctx.gpu().map(|gpu| Marks { gpu: gpu.clone(), list: Vec::new() });
        if let Some(marks) = &mut marks {
            marks.add()?;
        }
        Ok(Clock { started: Instant::now(), begun: 0.0, spans: Vec::new(), marks })
    }

    /// An op begins.
    pub fn begin(&mut self) -> Result<()> {
        self.begun = self.started.elapsed().as_secs_f64();
        self.marks.as_mut().map_or(Ok(()), Marks::add)
    }

    /// It has ended, or all of its work is behind the device's work so far.
    pub fn end(&mut self) -> Result<()> {
        self.spans.push((self.begun, self.started.elapsed().as_secs_f64()));
        self.marks.as_mut().map_or(Ok(()), Marks::add)
    }

    /// Start and end of each op, in seconds since the start; waits for the device.
    pub fn finish(self) -> Result<Vec<(f64, f64)>> {
        let Some(marks) = &self.marks else { return Ok(self.spans) };
        let Some((&first, rest)) = marks.list.split_first() else {
            return Err(Error::argument("clock", "the device's clock was never started"));
        };
        let driver = marks.gpu.driver();
        let at = |mark| driver.seconds_between(first, mark).map_err(|e| marks.gpu.error("clock", e));
        rest.chunks_exact(2).map(|pair| Ok((at(pair[0])?, at(pair[1])?))).collect()
    }
}
