//! Where the shape of a step comes from when it is no step of a data set: typed into a file, or drawn at random.

mod file;
mod uneven;

/// The most items and LLM chunks of a step: some gigabytes of tables.
pub const MOST_UNITS: usize = 10_000_000;

pub use file::read_workload;
pub use uneven::{Uneven, uneven};
