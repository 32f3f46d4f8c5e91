//! When things happen: the simulation, what is alive meanwhile, the gaps, and intervals of time that all ranks share.

mod gaps;
pub mod memory;
mod simulate;
mod slots;

pub(crate) use gaps::Gaps;
pub use simulate::{Blocked, SimulateError, Simulation, Span, simulate, simulate_durations};
pub(crate) use simulate::{ChunkRun, list};
pub use slots::work_bound;
pub(crate) use slots::{Slot, Slots, largest_first, share_out, slots, total_cost};
