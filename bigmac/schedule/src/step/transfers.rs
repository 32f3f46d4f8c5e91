//! Sizes and transfers of a workload.

use crate::step::costs::{WorkloadError, check_time};
use crate::step::sizes::{Link, MicrobatchSizes};
use crate::step::table::{ModuleKind, Piece, Unit, Value};
use crate::step::workload::Workload;

impl Workload {
    /// The same with another link between ranks.
    ///
    /// # Errors
    /// Where a time is negative or not finite.
    pub fn with_link(mut self, link: Link) -> Result<Workload, WorkloadError> {
        check_time(|| "the latency between ranks".to_owned(), link.latency)?;
        // It may be next to nothing: it is multiplied with bytes, and only that is added to times.
        if !(0.0..=1e50).contains(&link.seconds_per_byte) {
            let (what, given) = ("the time per byte between ranks".to_owned(), link.seconds_per_byte);
            return Err(WorkloadError::Value { what, given, expected: "a number from 0 to 1e50" });
        }
        self.link = link;
        Ok(self)
    }

    /// The same with known sizes, one per microbatch.
    ///
    /// # Errors
    /// Where microbatches, items or chunks are not as many as the workload has.
    pub fn with_sizes(mut self, sizes: Vec<MicrobatchSizes>) -> Result<Workload, WorkloadError> {
        let chunks = self.chunks();
        let wrong = |what: String, given, expected| Err(WorkloadError::Count { what, given, expected });
        if sizes.len() != self.len() {
            return wrong("sizes of microbatches".to_owned(), sizes.len(), self.len());
        }
        for (m, (sizes, load)) in sizes.iter().zip(&self.loads).enumerate() {
            for (what, given, wanted) in [
                ("encoder items", sizes.encoder.len(), load.encoder.len()),
                ("generator items", sizes.generator.len(), load.generator.len()),
                ("LLM chunks", sizes.llm.len(), chunks),
            ] {
                if given != wanted {
                    return wrong(format!("sizes of {what} in microbatch {m}"), given, wanted);
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
        match (unit.module.kind(), unit.piece) {
            (ModuleKind::Llm, Piece::Microbatch(_)) => sizes.llm.get(unit.module.chunk().0).copied(),
            (kind, Piece::Item(item)) => {
                let saved = sizes.items(kind).get(item.index)?.saved as f64;
                Some((saved * self.backward_share(unit.module)).round() as u64)
            }
            _ => None,
        }
    }

    /// Bytes of a value; `None` where sizes are not known.
    pub fn value_bytes(&self, value: Value) -> Option<u64> {
        let sizes = self.sizes.get(value.microbatch().0)?;
        Some(match value {
            Value::Hidden { .. } | Value::HiddenGrad { .. } => sizes.hidden,
            Value::Embeds(item) | Value::EmbedGrad(item) => sizes.encoder.get(item.index)?.value,
            Value::Cond(item) | Value::CondGrad(item) => sizes.generator.get(item.index)?.value,
            Value::EncoderHidden { item, .. } | Value::EncoderHiddenGrad { item, .. } => {
                sizes.encoder.get(item.index)?.hidden
            }
            Value::GeneratorHidden { item, .. } | Value::GeneratorHiddenGrad { item, .. } => {
                sizes.generator.get(item.index)?.hidden
            }
        })
    }

    /// Time that a value takes from one rank to another.
    pub(crate) fn transfer_time(&self, value: Value) -> f64 {
        let link = self.link;
        if link.seconds_per_byte == 0.0 {
            return link.latency;
        }
        link.latency + link.seconds_per_byte * self.value_bytes(value).unwrap_or(0) as f64
    }
}
