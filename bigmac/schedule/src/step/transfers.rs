//! Sizes and transfers of a workload.

use crate::step::costs::{WorkloadError, check_time};
use crate::step::sizes::{ItemSize, Link, MicrobatchSizes};
use crate::step::table::{Item, Module, Piece, Unit, Value};
use crate::step::workload::Workload;

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
