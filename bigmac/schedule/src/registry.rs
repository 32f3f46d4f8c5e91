//! All schedules by name. Adding one is a file that implements [`Schedule`] (or [`LlmSchedule`], for an order of the
//! LLM's chunks that any schedule can be built on) and a line in [`SCHEDULES`] (or [`LLM_SCHEDULES`]).

use crate::api::{LlmSchedule, Options, Schedule, ScheduleError};
use crate::check::budget::Limits;
use crate::names;
use crate::orders;
use crate::schedules::{
    bubble_fill, disaggregated, llm_only, monolithic, monolithic_balanced, nested, nested_fill, phased,
    recompute,
};

/// Every schedule of a whole step.
pub const SCHEDULES: &[&dyn Schedule] = &[
    &llm_only::LlmOnly,
    &monolithic::Monolithic,
    &monolithic_balanced::MonolithicBalanced,
    &disaggregated::Disaggregated,
    &phased::Phased,
    &recompute::Recompute,
    &bubble_fill::BubbleFill,
    &nested::Nested,
    &nested_fill::NestedFill,
];

/// Every order of the LLM's chunks.
pub const LLM_SCHEDULES: &[&dyn LlmSchedule] =
    &[&orders::OneFOneB, &orders::GPipe, &orders::Interleaved, &orders::ZbH1, &orders::ZbH2];

impl Default for Options {
    fn default() -> Self {
        Options { llm: &orders::OneFOneB, llm_group: None, group: None, limits: Limits::default() }
    }
}

/// The schedule of that name.
///
/// # Errors
/// Where there is none, with the names there are.
pub fn schedule(name: &str) -> Result<&'static dyn Schedule, ScheduleError> {
    Ok(names::find("schedule", name, SCHEDULES, |schedule| schedule.name())?)
}

/// The LLM schedule of that name.
///
/// # Errors
/// Where there is none, with the names there are.
pub fn llm_schedule(name: &str) -> Result<&'static dyn LlmSchedule, ScheduleError> {
    Ok(names::find("LLM schedule", name, LLM_SCHEDULES, |schedule| schedule.name())?)
}
