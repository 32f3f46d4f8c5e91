//! Execution: one executor runs every schedule for real, with explicit activation buffers.

mod buffers;
mod clock;
mod error;
mod losses;
mod mark;
mod program;
mod run;
mod sizes;
mod task;
mod turn;
mod unit;

pub use error::ExecuteError;
pub use losses::{LossPart, LossSums, Losses, QueuedLosses};
pub(crate) use mark::DeviceMark;
pub use program::{Program, options};
pub use run::{Measured, Ran, Record, activation_scope, run, run_one_at_a_time};
pub use sizes::with_sizes;
pub use task::StepTask;
pub use turn::Baton;
