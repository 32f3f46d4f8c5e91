//! One of something for each of encoder, LLM and generator.

use super::table::ModuleKind;
use serde::{Deserialize, Serialize};
use std::ops::{Index, IndexMut};

/// One of something per module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerModule<T> {
    /// The encoder's.
    pub encoder: T,
    /// The LLM's.
    pub llm: T,
    /// The generator's.
    pub generator: T,
}

impl<T: Copy> PerModule<T> {
    /// The same for each.
    pub fn all(value: T) -> PerModule<T> {
        PerModule { encoder: value, llm: value, generator: value }
    }
}

impl<T> PerModule<T> {
    /// What `of` says of each.
    pub fn from_fn(mut of: impl FnMut(ModuleKind) -> T) -> PerModule<T> {
        let [encoder, llm, generator] = ModuleKind::ALL.map(&mut of);
        PerModule { encoder, llm, generator }
    }

    /// Of each what `of` makes of it.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> PerModule<U> {
        PerModule { encoder: of(self.encoder), llm: of(self.llm), generator: of(self.generator) }
    }
}

impl<T> Index<ModuleKind> for PerModule<T> {
    type Output = T;

    fn index(&self, kind: ModuleKind) -> &T {
        match kind {
            ModuleKind::Encoder => &self.encoder,
            ModuleKind::Llm => &self.llm,
            ModuleKind::Generator => &self.generator,
        }
    }
}

impl<T> IndexMut<ModuleKind> for PerModule<T> {
    fn index_mut(&mut self, kind: ModuleKind) -> &mut T {
        match kind {
            ModuleKind::Encoder => &mut self.encoder,
            ModuleKind::Llm => &mut self.llm,
            ModuleKind::Generator => &mut self.generator,
        }
    }
}
