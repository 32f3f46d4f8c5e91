//! Pipeline schedules as data.
//!
//! A schedule is a [`Table`]: for every rank a list of [`Op`]s. Who waits for whom follows from the values that ops
//! consume and produce ([`dataflow`](step::dataflow)), given the shape of the step, a [`Workload`]. Everything else is a function of
//! the two: [`validate`](check::validate::validate), [`simulate`](clock::simulate::simulate), [`lower`](check::lower::lower) (adds the
//! communication), [`memory`](check::memory) (activation buffers), [`text`](files::text) (round trip), [`torch_csv`](files::torch_csv) (exchange), [`file`](files::file)
//! (either, by name), [`render`].
//!
//! ```
//! use bigmac_schedule::{Options, UniformCosts, Workload, clock::simulate::simulate, registry};
//!
//! let costs = UniformCosts { forward: 1.0, backward_input: 1.0, backward_weight: 1.0, encoder_forward: 2.0,
//!     encoder_backward: 4.0, ..UniformCosts::default() };
//! let workload = Workload::uniform(4, 1, 16, 4, costs, 0.0)?;
//! let table = registry::schedule("nested")?.build(&workload, &Options::default())?;
//! assert!(simulate(&table, &workload)?.time() <= 81.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
pub mod check;
pub mod clock;
pub mod files;
pub mod names;
mod orders;
pub mod registry;
pub mod render;
mod schedules;
pub mod step;
#[cfg(test)]
mod tests;

pub use api::{LlmOptions, LlmSchedule, Options, Schedule, ScheduleError, ideal_over, ideal_time};
pub use check::budget::{Budget, Limits};
pub use schedules::nested_fill::lower_bound;
pub use step::costs::{ChunkCost, ItemCost, Load, UniformCosts, WorkloadError};
pub use step::per_module::PerModule;
pub use step::placement::{Chain, Layers, Part};
pub use step::sizes::{ItemSize, Link, MicrobatchSizes};
pub use step::table::{
    Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value, Work,
};
pub use step::workload::Workload;
