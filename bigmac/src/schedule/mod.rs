//! Pipeline schedules as data.
//!
//! A schedule is a [`Table`]: for every rank a list of [`Op`]s. Who waits for whom follows from the values that ops
//! consume and produce, given the shape of the step, a [`Workload`].

pub mod dataflow;
pub mod table;
pub mod workload;

pub use table::{
    Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value, Work,
};
pub use workload::{ChunkCost, ItemCost, Learns, Load, UniformCosts, Workload, WorkloadError};
