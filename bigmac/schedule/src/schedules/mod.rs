//! Schedules of a whole step: one file each. `tools` holds what several of them build with.

pub(crate) mod bubble_fill;
pub(crate) mod disaggregated;
pub(crate) mod llm_only;
pub(crate) mod monolithic;
pub(crate) mod monolithic_balanced;
pub(crate) mod nested;
pub(crate) mod nested_fill;
pub(crate) mod phased;
pub(crate) mod recompute;
pub(crate) mod tools;
