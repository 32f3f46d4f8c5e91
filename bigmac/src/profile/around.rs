//! What is no op of a pipeline: a value's way between two ranks, and what follows the last op of a step.

use serde::{Deserialize, Serialize};

use super::Spread;

/// Seconds, as medians with their spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Around {
    /// From the send of a value of 4 bytes until its receiver, which waited for it, has it; none on one rank.
    pub latency: Option<Spread>,
    /// The same for a microbatch's hidden states.
    pub hidden: Option<Spread>,
    /// Bytes of these hidden states.
    pub hidden_bytes: usize,
    /// Reduction of gradients, on the slowest rank.
    pub reduce: Spread,
    /// The optimizer's step, on the slowest rank.
    pub optimizer: Spread,
}
