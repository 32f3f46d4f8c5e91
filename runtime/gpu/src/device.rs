//! Devices.

/// Where a tensor's storage lies and an operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// This machine's processors and memory.
    Cpu,
    /// The NVIDIA GPU of that ordinal.
    Cuda(usize),
    /// The GPU's kernels run on the CPU, thread by thread: for testing kernels, far too slow for anything else.
    Replay,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Device::Replay => f.write_str("replay"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let device = match s {
            "cpu" => Some(Device::Cpu),
            "replay" => Some(Device::Replay),
            "cuda" => Some(Device::Cuda(0)),
            _ => s.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()).map(Device::Cuda),
        };
        device.ok_or_else(|| {
            format!("'{s}' is not a valid device; expected 'cpu', 'cuda', 'cuda:N' or 'replay'")
        })
    }
}
