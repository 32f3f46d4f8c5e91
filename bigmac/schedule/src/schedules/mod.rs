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

pub(crate) use bubble_fill::BubbleFill;
pub(crate) use disaggregated::Disaggregated;
pub(crate) use llm_only::LlmOnly;
pub(crate) use monolithic::Monolithic;
pub(crate) use monolithic_balanced::MonolithicBalanced;
pub(crate) use nested::Nested;
pub(crate) use nested_fill::NestedFill;
pub use nested_fill::lower_bound;
pub(crate) use phased::Phased;
pub(crate) use recompute::Recompute;
