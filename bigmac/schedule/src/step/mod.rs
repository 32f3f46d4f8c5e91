//! What a step is: ops, the work they do, and what work costs.

pub mod costs;
pub mod dataflow;
pub(crate) mod homes;
pub(crate) mod numbering;
pub mod per_module;
pub mod placement;
pub mod sizes;
pub mod table;
pub(crate) mod transfers;
pub mod workload;
