//! Moments in a device's work.

use bigmac_gpu::{Gpu, Mark};
use bigmac_runtime::Result;

/// A mark in a device's work, which is released on drop.
#[derive(Debug)]
pub(crate) struct DeviceMark {
    gpu: Gpu,
    mark: Mark,
}

impl DeviceMark {
    /// A mark after all work that has been queued so far.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let mark = gpu.driver().mark().map_err(|e| gpu.error("clock", e))?;
        Ok(DeviceMark { gpu: gpu.clone(), mark })
    }

    /// Seconds from this mark to a later one, whose work is waited for.
    pub fn seconds_to(&self, later: &DeviceMark) -> Result<f64> {
        let seconds = self.gpu.driver().seconds_between(self.mark, later.mark);
        Ok(seconds.map_err(|e| self.gpu.error("clock", e))?)
    }
}

impl Drop for DeviceMark {
    fn drop(&mut self) {
        self.gpu.driver().forget(self.mark);
    }
}
