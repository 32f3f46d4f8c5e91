//! Dense numbers for the values and units of a workload, so that what is known about them is kept in flat arrays.

use crate::step::table::{Chunk, Item, Microbatch, Module, ModuleKind, Piece, Unit, Value};
use crate::step::workload::Workload;

impl Workload {
    /// A dense number for a value, below [`Workload::value_count`]; `None` for one that the workload cannot have.
    pub fn value_index(&self, value: Value) -> Option<usize> {
        let hidden = self.len() * self.chunks();
        let (embeds, conds) = (total(&self.encoder_offsets), total(&self.generator_offsets));
        let (cut_encoder, cut_generator) = (embeds * self.encoder_chunks(), conds * self.generator_chunks());
        let items = 2 * hidden;
        let cuts = items + 2 * (embeds + conds);
        Some(match value {
            Value::Hidden { microbatch, chunk } => self.llm_index(microbatch, chunk)?,
            Value::HiddenGrad { microbatch, chunk } => hidden + self.llm_index(microbatch, chunk)?,
            Value::Embeds(item) => items + index(&self.encoder_offsets, item)?,
            Value::EmbedGrad(item) => items + embeds + index(&self.encoder_offsets, item)?,
            Value::Cond(item) => items + 2 * embeds + index(&self.generator_offsets, item)?,
            Value::CondGrad(item) => items + 2 * embeds + conds + index(&self.generator_offsets, item)?,
            Value::EncoderHidden { item, chunk } => cuts + self.encoder_index(item, chunk)?,
            Value::EncoderHiddenGrad { item, chunk } => {
                cuts + cut_encoder + self.encoder_index(item, chunk)?
            }
            Value::GeneratorHidden { item, chunk } => {
                cuts + 2 * cut_encoder + self.generator_index(item, chunk)?
            }
            Value::GeneratorHiddenGrad { item, chunk } => {
                cuts + 2 * cut_encoder + cut_generator + self.generator_index(item, chunk)?
            }
        })
    }

    /// How many numbers [`Workload::value_index`] uses.
    pub fn value_count(&self) -> usize {
        let (embeds, conds) = (total(&self.encoder_offsets), total(&self.generator_offsets));
        2 * (self.len() * self.chunks()
            + embeds * (1 + self.encoder_chunks())
            + conds * (1 + self.generator_chunks()))
    }

    /// A dense number for a unit, below [`Workload::unit_count`]; `None` for one that the workload does not have.
    pub fn unit_index(&self, unit: Unit) -> Option<usize> {
        let hidden = self.len() * self.chunks();
        match (unit.module, unit.piece) {
            (Module::Llm(chunk), Piece::Microbatch(microbatch)) => self.llm_index(microbatch, chunk),
            (Module::Encoder(chunk), Piece::Item(item)) => Some(hidden + self.encoder_index(item, chunk)?),
            (Module::Generator(chunk), Piece::Item(item)) => {
                let encoder = total(&self.encoder_offsets) * self.encoder_chunks();
                Some(hidden + encoder + self.generator_index(item, chunk)?)
            }
            _ => None,
        }
    }

    /// How many numbers [`Workload::unit_index`] uses.
    pub fn unit_count(&self) -> usize {
        self.len() * self.chunks()
            + total(&self.encoder_offsets) * self.encoder_chunks()
            + total(&self.generator_offsets) * self.generator_chunks()
    }

    /// The number of an encoder chunk's unit among all of the encoder's.
    fn encoder_index(&self, item: Item, chunk: Chunk) -> Option<usize> {
        cut_index(&self.encoder_offsets, item, chunk, self.encoder_chunks())
    }

    /// The number of a generator chunk's unit among all of the generator's.
    fn generator_index(&self, item: Item, chunk: Chunk) -> Option<usize> {
        cut_index(&self.generator_offsets, item, chunk, self.generator_chunks())
    }

    fn llm_index(&self, microbatch: Microbatch, chunk: Chunk) -> Option<usize> {
        let chunks = self.chunks();
        (microbatch.0 < self.len() && chunk.0 < chunks).then(|| microbatch.0 * chunks + chunk.0)
    }

    /// Every unit of the workload: microbatch by microbatch encoder items, LLM chunks, generator items.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.microbatches().flat_map(move |microbatch| {
            let encoder = self.item_units(ModuleKind::Encoder, microbatch);
            let llm = (0..self.chunks()).map(move |c| {
                let (module, piece) = (Module::Llm(Chunk(c)), Piece::Microbatch(microbatch));
                Unit { module, piece }
            });
            encoder.chain(llm).chain(self.item_units(ModuleKind::Generator, microbatch))
        })
    }

    fn item_units(&self, kind: ModuleKind, microbatch: Microbatch) -> impl Iterator<Item = Unit> + '_ {
        let (chunks, module): (usize, fn(Chunk) -> Module) = match kind {
            ModuleKind::Encoder => (self.encoder_chunks(), Module::Encoder),
            _ => (self.generator_chunks(), Module::Generator),
        };
        let items = self.items(kind, microbatch);
        items.flat_map(move |item| {
            (0..chunks).map(move |c| Unit { module: module(Chunk(c)), piece: Piece::Item(item) })
        })
    }
}

fn cut_index(offsets: &[usize], item: Item, chunk: Chunk, chunks: usize) -> Option<usize> {
    let index = index(offsets, item).filter(|_| chunk.0 < chunks);
    index.map(|index| index * chunks + chunk.0)
}

/// The item's number among all of its kind.
fn index(offsets: &[usize], item: Item) -> Option<usize> {
    let (start, end) = (offsets.get(item.microbatch.0)?, offsets.get(item.microbatch.0 + 1)?);
    (item.index < end - start).then(|| start + item.index)
}

fn total(offsets: &[usize]) -> usize {
    offsets.last().copied().unwrap_or(0)
}
