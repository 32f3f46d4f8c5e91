//! Bytes: what units save for their backwards, and how big the values are that cross between ranks.

use crate::step::table::ModuleKind;

/// Bytes of one encoder or generator item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemSize {
    /// What the forward of the whole module saves for its backward.
    pub saved: u64,
    /// The embeddings that the encoder makes of it, or the hidden states that its drawing is conditioned on.
    pub value: u64,
    /// What one chunk hands to the next where the module is cut; 0 where it is not.
    pub hidden: u64,
}

/// Bytes of one microbatch. Gradients are as big as the values that they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicrobatchSizes {
    /// One per encoder item.
    pub encoder: Vec<ItemSize>,
    /// One per generator item.
    pub generator: Vec<ItemSize>,
    /// What each LLM chunk saves, in the order of the chunks.
    pub llm: Vec<u64>,
    /// Hidden states between LLM chunks.
    pub hidden: u64,
}

impl MicrobatchSizes {
    /// The items of encoder or generator; none for the LLM.
    pub fn items(&self, kind: ModuleKind) -> &[ItemSize] {
        match kind {
            ModuleKind::Encoder => &self.encoder,
            ModuleKind::Generator => &self.generator,
            ModuleKind::Llm => &[],
        }
    }
}

/// How a value gets from one rank to another: in `latency + bytes x seconds_per_byte`, whatever else is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Time that even an empty value takes.
    pub latency: f64,
    /// Time per byte, in the workload's unit of time; counts only where sizes are known.
    pub seconds_per_byte: f64,
    /// Whether the sender computes while it sends. Otherwise it sends its values one after the other, and goes on when
    /// the last has arrived.
    pub overlapped: bool,
}

impl Default for Link {
    fn default() -> Self {
        Link { latency: 0.0, seconds_per_byte: 0.0, overlapped: true }
    }
}
