//! Dense numbers for the values and units of a workload, so that what is known about them is kept in flat arrays.

use super::table::{Chunk, Item, Microbatch, Module, ModuleKind, Piece, Unit, Value};
use super::workload::Workload;

impl Workload {
    /// A dense number for a value, below [`Workload::value_count`]; `None` for one that the workload cannot have.
    pub fn value_index(&self, value: Value) -> Option<usize> {
        let (n, chunks) = (self.len(), self.chunks());
        let hidden = |microbatch: Microbatch, chunk: Chunk| {
            (microbatch.0 < n && chunk.0 < chunks).then(|| microbatch.0 * chunks + chunk.0)
        };
        let (encoder, generator) = (total(&self.encoder_offsets), total(&self.generator_offsets));
        let item = |offsets: &[usize], item: Item| {
            let (start, end) = (offsets.get(item.microbatch.0)?, offsets.get(item.microbatch.0 + 1)?);
            (item.index < end - start).then(|| start + item.index)
        };
        let (base, index) = match value {
            Value::Hidden { microbatch, chunk } => (0, hidden(microbatch, chunk)),
            Value::HiddenGrad { microbatch, chunk } => (n * chunks, hidden(microbatch, chunk)),
            Value::Embeds(i) => (2 * n * chunks, item(&self.encoder_offsets, i)),
            Value::EmbedGrad(i) => (2 * n * chunks + encoder, item(&self.encoder_offsets, i)),
            Value::Cond(i) => (2 * (n * chunks + encoder), item(&self.generator_offsets, i)),
            Value::CondGrad(i) => (2 * (n * chunks + encoder) + generator, item(&self.generator_offsets, i)),
        };
        index.map(|index| base + index)
    }

    /// How many numbers [`Workload::value_index`] uses.
    pub fn value_count(&self) -> usize {
        2 * (self.len() * self.chunks() + total(&self.encoder_offsets) + total(&self.generator_offsets))
    }

    /// A dense number for a unit, below [`Workload::unit_count`]; `None` for one that the workload does not have.
    pub fn unit_index(&self, unit: Unit) -> Option<usize> {
        // A unit is numbered as the value that its forward makes or reads, one per unit in each case.
        match (unit.module, unit.piece) {
            (Module::Llm(chunk), Piece::Microbatch(microbatch)) => {
                self.value_index(Value::Hidden { microbatch, chunk })
            }
            (Module::Encoder(Chunk(0)), Piece::Item(item)) => {
                self.value_index(Value::Embeds(item)).map(|index| index - self.len() * self.chunks())
            }
            (Module::Generator(Chunk(0)), Piece::Item(item)) => self
                .value_index(Value::Cond(item))
                .map(|index| index - self.len() * self.chunks() - total(&self.encoder_offsets)),
            _ => None,
        }
    }

    /// How many numbers [`Workload::unit_index`] uses.
    pub fn unit_count(&self) -> usize {
        self.value_count() / 2
    }

    /// Every unit of the workload: microbatch by microbatch encoder items, LLM chunks, generator items.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.microbatches().flat_map(move |microbatch| {
            let encoder =
                self.items(ModuleKind::Encoder, microbatch).map(|item| (Module::ENCODER, Piece::Item(item)));
            let llm = (0..self.chunks()).map(move |c| (Module::Llm(Chunk(c)), Piece::Microbatch(microbatch)));
            let generator = self
                .items(ModuleKind::Generator, microbatch)
                .map(|item| (Module::GENERATOR, Piece::Item(item)));
            encoder.chain(llm).chain(generator).map(|(module, piece)| Unit { module, piece })
        })
    }
}

fn total(offsets: &[usize]) -> usize {
    offsets.last().copied().unwrap_or(0)
}
