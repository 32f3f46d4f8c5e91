//! What a step is: tables of ops, the workload they are for, and who needs what.

mod costs;
mod dataflow;
mod homes;
mod numbering;
mod per_module;
mod placement;
mod sizes;
mod table;
mod transfers;
mod workload;

pub use costs::{ChunkCost, ItemCost, Load, TIME, UniformCosts, WorkloadError, check_extent, is_time};
pub(crate) use dataflow::readers;
pub use per_module::PerModule;
pub use placement::{Chain, ChainPart, ChunkPlacement, Layers, even_ranges};
pub use sizes::{ItemSize, Link, MicrobatchSizes};
pub use table::{
    Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value, Work,
};
pub use workload::Workload;
