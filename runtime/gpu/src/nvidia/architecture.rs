//! Architectures of GPUs.

/// A GPU's architecture, as CUDA's compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl Architecture {
    /// The earliest that kernels are written for: bf16 products and asynchronous copies.
    pub const EARLIEST: Architecture = Architecture { major: 8, minor: 0 };

    /// The target that kernels are compiled for: from 9.0 on with the instructions that only this architecture has,
    /// such as `sm_90a`.
    pub fn target(self) -> String {
        let own = if self.major >= 9 { "a" } else { "" };
        format!("{self}{own}")
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}
