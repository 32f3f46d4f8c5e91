//! How high memory is drawn.

use super::{MemoryUnit, Timeline};
use crate::step::ModuleKind;

/// Modules in the order in which their memory is stacked, from below.
pub(super) const STACK: [ModuleKind; 3] = [ModuleKind::Llm, ModuleKind::Encoder, ModuleKind::Generator];

/// By [`MemoryUnit`]: the most activations that any rank holds at once, over all timelines of a picture. It is what a
/// strip's full height stands for, so that strips of one unit can be compared.
pub(super) fn peaks(timelines: &[Timeline]) -> [f64; 2] {
    [MemoryUnit::Microbatches, MemoryUnit::Bytes].map(|unit| {
        let of_unit = timelines.iter().filter(|timeline| timeline.memory_unit == unit);
        let points = of_unit.flat_map(|timeline| timeline.memory.iter().flatten());
        points.map(|(_, live)| live.encoder + live.llm + live.generator).fold(0.0, f64::max)
    })
}
