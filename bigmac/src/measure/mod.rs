//! Schedules run for real: the same step in turns, on the same threads, so that a machine that slows down slows all of
//! them; and what the clock says of transfers and of what surrounds the pipeline.

mod around;
mod contender;
mod error;
mod take;
mod turns;

pub use around::around;
pub use contender::{Contender, contender};
pub use error::MeasureError;
pub use take::{fits, take};
pub use turns::{Contest, Entry, Rounds, Turn, Way, take_turns};
