//! Schedules run for real: the same step in turns, on the same threads, so that a machine that slows down slows all of
//! them; and what the clock says of transfers and of what surrounds the pipeline.

mod around;
mod contender;
mod spread;
mod turns;

pub use around::{Around, around};
pub use contender::{Contender, NotRun, contender};
pub use spread::{Spread, quantiles};
pub use turns::{Contest, Rounds, Turn, take_turns};
