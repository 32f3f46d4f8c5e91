//! Bytes: what units save for their backwards, and how big the values are that cross between ranks.

use super::costs::{WorkloadError, check_time};
use super::table::{Item, Module, Piece, Unit, Value};
use super::workload::Workload;

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

impl Workload {
    /// The same with another link between ranks.
    ///
    /// # Errors
    /// Where a time is negative or not finite.
    pub fn with_link(mut self, link: Link) -> Result<Workload, WorkloadError> {
        check_time(|| "the latency between ranks".to_owned(), link.latency)?;
        check_time(|| "the time per byte between ranks".to_owned(), link.seconds_per_byte)?;
        self.link = link;
        Ok(self)
    }

    /// The same with known sizes, one per microbatch.
    ///
    /// # Errors
    /// Where microbatches, items or chunks are not as many as the workload has.
    pub fn with_sizes(mut self, sizes: Vec<MicrobatchSizes>) -> Result<Workload, WorkloadError> {
        let chunks = self.chunks();
        let wrong =
            |what, microbatch, given, wanted| Err(WorkloadError::Sizes { what, microbatch, given, wanted });
        if sizes.len() != self.len() {
            return wrong("microbatches", 0, sizes.len(), self.len());
        }
        for (m, (sizes, load)) in sizes.iter().zip(&self.loads).enumerate() {
            for (what, given, wanted) in [
                ("encoder items", sizes.encoder.len(), load.encoder.len()),
                ("generator items", sizes.generator.len(), load.generator.len()),
                ("LLM chunks", sizes.llm.len(), chunks),
            ] {
                if given != wanted {
                    return wrong(what, m, given, wanted);
                }
            }
        }
        self.sizes = sizes;
        Ok(self)
    }

    /// How values get from rank to rank.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Bytes that a unit's forward saves for its backward; `None` where sizes are not known.
    pub fn saved(&self, unit: Unit) -> Option<u64> {
        let sizes = self.sizes.get(unit.microbatch().0)?;
        let part = |items: &[ItemSize], item: Item| {
            let saved = items.get(item.index)?.saved as f64;
            Some((saved * self.share_of(unit.module)).round() as u64)
        };
        match (unit.module, unit.piece) {
            (Module::Llm(chunk), Piece::Microbatch(_)) => sizes.llm.get(chunk.0).copied(),
            (Module::Encoder(_), Piece::Item(item)) => part(&sizes.encoder, item),
            (Module::Generator(_), Piece::Item(item)) => part(&sizes.generator, item),
            _ => None,
        }
    }

    /// Bytes of a value; `None` where sizes are not known.
    pub fn value_bytes(&self, value: Value) -> Option<u64> {
        let sizes = self.sizes.get(value.microbatch().0)?;
        let of = |items: &[ItemSize], item: Item| items.get(item.index).copied();
        Some(match value {
            Value::Hidden { .. } | Value::HiddenGrad { .. } => sizes.hidden,
            Value::Embeds(item) | Value::EmbedGrad(item) => of(&sizes.encoder, item)?.value,
            Value::Cond(item) | Value::CondGrad(item) => of(&sizes.generator, item)?.value,
            Value::EncoderHidden { item, .. } | Value::EncoderHiddenGrad { item, .. } => {
                of(&sizes.encoder, item)?.hidden
            }
            Value::GeneratorHidden { item, .. } | Value::GeneratorHiddenGrad { item, .. } => {
                of(&sizes.generator, item)?.hidden
            }
        })
    }

    /// Time that a value takes from one rank to another.
    pub fn transfer_time(&self, value: Value) -> f64 {
        let link = self.link;
        if link.seconds_per_byte == 0.0 {
            return link.latency;
        }
        link.latency + link.seconds_per_byte * self.value_bytes(value).unwrap_or(0) as f64
    }
}
