//! Streams: ordered queues of work on a device.

use crate::device::Device;
use crate::error::{Error, Result};

impl Device {
    /// Checks that this build can run on the device.
    ///
    /// # Errors
    /// [`Error::Device`] when it can't.
    pub fn available(self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(_) => Err(Error::Device {
                device: self,
                message: "this build has no CUDA backend; use the device 'cpu'".into(),
            }),
        }
    }
}

/// An ordered queue of work on a device. On the CPU an operator has ended when its call returns, so a stream is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    device: Device,
}

impl Stream {
    /// The default stream of a device.
    ///
    /// # Errors
    /// [`Error::Device`] when the device can't be used.
    pub fn new(device: Device) -> Result<Self> {
        device.available()?;
        Ok(Stream { device })
    }

    /// The device whose stream this is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Waits until everything queued has run: at once on the CPU.
    pub fn synchronize(&self) -> Result<()> {
        self.device.available()
    }
}
