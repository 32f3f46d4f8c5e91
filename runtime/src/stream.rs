//! Streams: ordered queues of work on a device.

use crate::error::Result;
use bigmac_gpu::{Device, Gpu};

/// An ordered queue of work on a device. On the CPU an operator has ended when its call returns, so a stream is
/// nothing; a GPU has one, that of its handle.
#[derive(Clone, Debug)]
pub struct Stream {
    gpu: Option<Gpu>,
}

impl Stream {
    /// The stream of a GPU, or of the CPU.
    pub fn of(gpu: Option<&Gpu>) -> Self {
        Stream { gpu: gpu.cloned() }
    }

    /// The device whose stream this is.
    pub fn device(&self) -> Device {
        self.gpu.as_ref().map_or(Device::Cpu, Gpu::device)
    }

    /// The GPU whose stream this is.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// Waits until everything queued has run: at once on the CPU.
    ///
    /// # Errors
    /// [`Error::Gpu`](crate::Error::Gpu) when something queued has failed.
    pub fn synchronize(&self) -> Result<()> {
        match &self.gpu {
            None => Ok(()),
            Some(gpu) => gpu.driver().synchronize().map_err(|e| gpu.error("synchronize", e).into()),
        }
    }
}
