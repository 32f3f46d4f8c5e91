//! Where the shape of a step comes from when it is no step of a data set: typed into a file, or drawn at random.

mod file;
mod frozen;
mod uneven;

pub use file::read_workload;
pub use frozen::{Frozen, freeze};
pub use uneven::{Uneven, uneven};
