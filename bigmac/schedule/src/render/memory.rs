//! How high memory is drawn.

use super::{MemoryUnit, Timeline};
use crate::step::{ModuleKind, PerModule};

/// Modules in the order in which their memory is stacked, from below.
pub(super) const STACK: [ModuleKind; 3] = [ModuleKind::Llm, ModuleKind::Encoder, ModuleKind::Generator];

/// The most activations that any rank holds at once, over all timelines of a picture, per unit: what a strip's full
/// height stands for, so that strips of one unit can be compared.
#[derive(Clone, Copy)]
pub(super) struct Peaks {
    microbatches: f64,
    bytes: f64,
}

impl Peaks {
    pub fn of(timelines: &[Timeline]) -> Peaks {
        let most = |unit| {
            let of_unit = timelines.iter().filter(|timeline| timeline.memory_unit == unit);
            let points = of_unit.flat_map(|timeline| timeline.memory.iter().flatten());
            points.map(|(_, live)| together(live)).fold(0.0, f64::max)
        };
        Peaks { microbatches: most(MemoryUnit::Microbatches), bytes: most(MemoryUnit::Bytes) }
    }

    pub fn get(&self, unit: MemoryUnit) -> f64 {
        match unit {
            MemoryUnit::Microbatches => self.microbatches,
            MemoryUnit::Bytes => self.bytes,
        }
    }
}

fn together(live: &PerModule<f64>) -> f64 {
    live.encoder + live.llm + live.generator
}
