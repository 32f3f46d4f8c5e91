//! When things happen: the simulation, what is alive meanwhile, the gaps, and intervals of time that all ranks share.

mod gaps;
pub mod memory;
mod simulate;
mod slots;

pub(crate) use gaps::Gaps;
pub(crate) use simulate::list;
pub use simulate::{Blocked, SimulateError, Simulation, Span, simulate};
pub use slots::work_bound;
pub(crate) use slots::{Slot, Slots, largest_first, slot_of, slots, total_cost};
