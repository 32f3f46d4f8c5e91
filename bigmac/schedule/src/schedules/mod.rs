//! Schedules of a whole step: one file each. `tools` holds what several of them build with.

mod bubble_fill;
mod disaggregated;
mod llm_only;
mod monolithic;
mod monolithic_balanced;
mod nested;
pub(crate) mod nested_fill;
mod phased;
mod recompute;
mod tools;

pub(crate) use bubble_fill::BUBBLE_FILL;
pub(crate) use disaggregated::DISAGGREGATED;
pub(crate) use llm_only::LLM_ONLY;
pub(crate) use monolithic::MONOLITHIC;
pub(crate) use monolithic_balanced::MONOLITHIC_BALANCED;
pub(crate) use nested::NESTED;
pub(crate) use nested_fill::NESTED_FILL;
pub use nested_fill::lower_bound;
pub(crate) use phased::PHASED;
pub(crate) use recompute::RECOMPUTE;
