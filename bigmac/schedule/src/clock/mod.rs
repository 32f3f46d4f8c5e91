//! When things happen: the simulation, the gaps it leaves, and intervals of time that all ranks share.

pub(crate) mod gaps;
pub mod simulate;
pub mod slots;
