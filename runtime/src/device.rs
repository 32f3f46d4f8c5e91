//! Devices and streams.

use crate::error::{Error, Result};

/// Where a tensor's storage lies and an operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// This machine's processors and memory.
    Cpu,
    /// The NVIDIA GPU of that ordinal.
    Cuda(usize),
}

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

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s == "cpu" {
            return Ok(Device::Cpu);
        }
        let ordinal = match s.strip_prefix("cuda") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
            None => None,
        };
        ordinal
            .map(Device::Cuda)
            .ok_or_else(|| format!("unknown device '{s}'; write 'cpu', 'cuda' or 'cuda:N'"))
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
