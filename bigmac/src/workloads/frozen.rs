//! What of a step's modules does not learn.

use bigmac_schedule::{ModuleKind, Workload};
use serde::Deserialize;

/// Something that does not learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frozen {
    /// The encoder with its projector.
    Encoder,
    /// The encoder's layers, without its projector.
    Tower,
    /// The LLM.
    Llm,
    /// The generator.
    Generator,
}

impl Frozen {
    /// All of them, in the order of the data.
    pub const ALL: [Frozen; 4] = [Frozen::Encoder, Frozen::Tower, Frozen::Llm, Frozen::Generator];

    /// Its name, as in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Frozen::Encoder => "encoder",
            Frozen::Tower => "tower",
            Frozen::Llm => "llm",
            Frozen::Generator => "generator",
        }
    }
}

/// The workload with these frozen as well. An encoder item's backward is its costs' either way; with the layers alone
/// frozen, all of it runs where the encoder ends.
pub fn freeze(workload: Workload, frozen: &[Frozen]) -> Workload {
    let (mut learns, mut projector_alone) = (workload.learns(), workload.projector_alone());
    for frozen in frozen {
        match frozen {
            Frozen::Encoder => learns[ModuleKind::Encoder] = false,
            Frozen::Tower => projector_alone = true,
            Frozen::Llm => learns[ModuleKind::Llm] = false,
            Frozen::Generator => learns[ModuleKind::Generator] = false,
        }
    }
    workload.with_learns(learns).with_projector_alone(projector_alone)
}
