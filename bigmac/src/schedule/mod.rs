//! Pipeline schedules as data.
//!
//! A schedule is a [`Table`]: for every rank a list of [`Op`]s. Who waits for whom follows from the values that ops
//! consume and produce ([`dataflow`]), given the shape of the step, a [`Workload`]. Everything else is a function of
//! the two: [`validate`](validate::validate), [`simulate`](simulate::simulate), [`lower`](lower::lower) (adds the
//! communication), [`memory`] (activation buffers), [`text`] (round trip), [`torch_csv`] (exchange), [`mod@file`]
//! (either, by name), [`render`].
//!
//! ```
//! use bigmac::schedule::{Options, UniformCosts, Workload, registry, simulate::simulate};
//!
//! let costs = UniformCosts { forward: 1.0, backward_input: 1.0, backward_weight: 1.0, encoder_forward: 2.0,
//!     encoder_backward: 4.0, ..UniformCosts::default() };
//! let workload = Workload::uniform(4, 1, 16, 4, costs, 0.0)?;
//! let table = registry::schedule("nested")?.build(&workload, &Options::default())?;
//! assert!(simulate(&table, &workload)?.time() <= 81.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod bubble_fill;
pub mod budget;
mod chain;
pub mod costs;
mod cut;
pub mod dataflow;
mod disaggregated;
pub mod file;
mod flow;
mod gaps;
mod homes;
mod insertion;
mod llm;
mod llm_only;
pub mod lower;
pub mod memory;
mod monolithic;
mod monolithic_balanced;
mod nested;
mod nested_fill;
mod numbering;
mod phased;
pub mod placement;
mod recompute;
pub mod registry;
pub mod render;
pub mod simulate;
pub mod sizes;
pub mod slots;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod torch_csv;
mod transfers;
pub mod validate;
pub mod workload;

pub use api::{LlmOptions, LlmSchedule, Options, Schedule, ScheduleError, ideal_over, ideal_time};
pub use budget::{Budget, Limits};
pub use costs::{ChunkCost, ItemCost, Learns, Load, UniformCosts, WorkloadError};
pub use memory::PerModule;
pub use nested_fill::lower_bound;
pub use placement::{Chain, Layers, Part};
pub use sizes::{ItemSize, Link, MicrobatchSizes};
pub use table::{
    Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value, Work,
};
pub use workload::Workload;
