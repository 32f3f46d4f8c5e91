//! All schedules by name. Adding one is a file that implements [`Schedule`] (or [`LlmSchedule`], for an order of the
//! LLM's chunks that any schedule can be built on) and a line in [`SCHEDULES`] (or [`LLM_SCHEDULES`]).

use crate::api::{LlmSchedule, Options, Schedule, ScheduleError};
use crate::check::Limits;
use crate::names;
use crate::orders::{GPipe, Interleaved, OneFOneB, ZbH1, ZbH2};
use crate::schedules::{
    BubbleFill, Disaggregated, LlmOnly, Monolithic, MonolithicBalanced, Nested, NestedFill, Phased, Recompute,
};

/// Every schedule of a whole step.
pub const SCHEDULES: &[&dyn Schedule] = &[
    &LlmOnly,
    &Monolithic,
    &MonolithicBalanced,
    &Disaggregated,
    &Phased,
    &Recompute,
    &BubbleFill,
    &Nested,
    &NestedFill,
];

/// Every order of the LLM's chunks.
pub const LLM_SCHEDULES: &[&dyn LlmSchedule] = &[&OneFOneB, &GPipe, &Interleaved, &ZbH1, &ZbH2];

impl Default for Options {
    fn default() -> Self {
        Options { llm: &OneFOneB, llm_group: None, group: None, limits: Limits::default() }
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
