//! Dense numbers for the values and units of a workload, so that what is known about them is kept in flat arrays.

use crate::step::table::{Chunk, Item, Module, ModuleKind, Piece, Unit, Value};
use crate::step::workload::Workload;

impl Workload {
    /// A dense number for a unit, below the number of units; `None` for one that the workload does not have. The
    /// LLM's come first, then the encoder's, then the generator's.
    pub fn unit_index(&self, unit: Unit) -> Option<usize> {
        let (kind, chunk) = (unit.module.kind(), unit.module.chunk().0);
        let piece = match (kind, unit.piece) {
            (ModuleKind::Llm, Piece::Microbatch(microbatch)) => {
                Some(microbatch.0).filter(|m| *m < self.len())
            }
            (ModuleKind::Encoder | ModuleKind::Generator, Piece::Item(item)) => self.item_index(kind, item),
            _ => None,
        };
        let before = match kind {
            ModuleKind::Llm => 0,
            ModuleKind::Encoder => self.units_of(ModuleKind::Llm),
            ModuleKind::Generator => self.units_of(ModuleKind::Llm) + self.units_of(ModuleKind::Encoder),
        };
        let chunks = self.chunks_of(kind);
        piece.filter(|_| chunk < chunks).map(|piece| before + piece * chunks + chunk)
    }

    /// How many numbers [`Workload::unit_index`] uses.
    pub(crate) fn unit_count(&self) -> usize {
        ModuleKind::ALL.into_iter().map(|kind| self.units_of(kind)).sum()
    }

    /// A dense number for a value, below [`Workload::value_count`]; `None` for one that the workload cannot have.
    pub fn value_index(&self, value: Value) -> Option<usize> {
        let last = |kind: ModuleKind| kind.module(Chunk(self.chunks_of(kind).saturating_sub(1)));
        // What crosses between the chunks of a module goes with the chunk that reads it. What crosses between modules
        // takes the numbers that are then free: the first chunk reads nothing of one before it, and the last no
        // gradient of one after it.
        let (unit, is_grad) = match value {
            Value::Hidden { microbatch, chunk } => (Unit::llm(chunk, microbatch), false),
            Value::HiddenGrad { microbatch, chunk } => (Unit::llm(chunk, microbatch), true),
            Value::Embeds(item) => (Unit::item(Module::ENCODER, item), false),
            Value::EmbedGrad(item) => (Unit::item(last(ModuleKind::Encoder), item), true),
            Value::Cond(item) => (Unit::item(Module::GENERATOR, item), false),
            Value::CondGrad(item) => (Unit::item(last(ModuleKind::Generator), item), true),
            Value::EncoderHidden { item, chunk } => (Unit::item(Module::Encoder(chunk), item), false),
            Value::EncoderHiddenGrad { item, chunk } => (Unit::item(Module::Encoder(chunk), item), true),
            Value::GeneratorHidden { item, chunk } => (Unit::item(Module::Generator(chunk), item), false),
            Value::GeneratorHiddenGrad { item, chunk } => (Unit::item(Module::Generator(chunk), item), true),
        };
        let free = if is_grad { self.is_last(unit.module) } else { unit.module.chunk() == Chunk(0) };
        let between_modules =
            matches!(value, Value::Embeds(_) | Value::EmbedGrad(_) | Value::Cond(_) | Value::CondGrad(_));
        let index = self.unit_index(unit).filter(|_| free == between_modules);
        index.map(|index| 2 * index + usize::from(is_grad))
    }

    /// How many numbers [`Workload::value_index`] uses.
    pub fn value_count(&self) -> usize {
        2 * self.unit_count()
    }

    /// Every unit of the workload: microbatch by microbatch encoder items, LLM chunks, generator items.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.microbatches().flat_map(move |microbatch| {
            let llm = (0..self.chunks()).map(move |chunk| Unit::llm(Chunk(chunk), microbatch));
            let items = move |kind: ModuleKind| {
                self.items(kind, microbatch).flat_map(move |item| {
                    (0..self.chunks_of(kind)).map(move |chunk| Unit::item(kind.module(Chunk(chunk)), item))
                })
            };
            items(ModuleKind::Encoder).chain(llm).chain(items(ModuleKind::Generator))
        })
    }

    fn units_of(&self, kind: ModuleKind) -> usize {
        let pieces = match kind {
            ModuleKind::Llm => self.len(),
            ModuleKind::Encoder | ModuleKind::Generator => self.offsets[kind].last().copied().unwrap_or(0),
        };
        pieces * self.chunks_of(kind)
    }

    /// The item's number among all of its kind.
    fn item_index(&self, kind: ModuleKind, item: Item) -> Option<usize> {
        let offsets = &self.offsets[kind];
        let (start, end) = (offsets.get(item.microbatch.0)?, offsets.get(item.microbatch.0 + 1)?);
        (item.index < end - start).then(|| start + item.index)
    }
}
