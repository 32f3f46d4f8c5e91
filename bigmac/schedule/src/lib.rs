//! Pipeline schedules as data.
//!
//! A schedule is a [`Table`]: for every rank a list of [`Op`]s. Who waits for whom follows from the values that ops
//! consume and produce, given the shape of the step, a [`Workload`]. Everything else is a function of the two:
//! [`validate`], [`simulate`], [`lower`] (adds the communication), [`memory`] (activation buffers), [`files`] (text and
//! CSV), [`render`] (pictures). All schedules are in the [`registry`].
//!
//! ```
//! use bigmac_schedule::{Options, UniformCosts, Workload, registry, simulate};
//!
//! let costs = UniformCosts { forward: 1.0, backward_input: 1.0, backward_weight: 1.0, encoder_forward: 2.0,
//!     encoder_backward: 4.0, ..UniformCosts::default() };
//! let workload = Workload::uniform(4, 1, 16, 4, costs, 0.0)?;
//! let table = registry::schedule("nested")?.build(&workload, &Options::default())?;
//! assert!(simulate(&table, &workload)?.time() <= 81.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The folders, each of which reads only those before it: `step` (what a step is), `clock` (when things happen),
//! `check` (what must hold), `orders` and `schedules` (who runs what in which order), `files` and `render`.

mod api;
mod check;
mod clock;
pub mod files;
pub mod names;
mod orders;
pub mod registry;
pub mod render;
mod schedules;
mod step;
#[cfg(test)]
mod tests;

pub use api::{LlmOptions, LlmSchedule, Options, Schedule, ScheduleError, ideal_over, ideal_time};
pub use check::*;
pub use clock::{Blocked, SimulateError, Simulation, Span, memory, simulate, simulate_durations, work_bound};
pub use schedules::lower_bound;
pub use step::*;
