//! All schedules by name. Adding one is a file that implements [`Schedule`] (or [`LlmSchedule`], for an order of the
//! LLM's chunks that any schedule can be built on) and a line in [`SCHEDULES`] (or [`LLM_SCHEDULES`]).

use crate::api::{LlmSchedule, Options, Schedule, ScheduleError};
use crate::check::Limits;
use crate::names;
use crate::orders::{GPIPE, INTERLEAVED, ONE_F_ONE_B, ZB_H1, ZB_H2};
use crate::schedules::{
    BUBBLE_FILL, DISAGGREGATED, LLM_ONLY, MONOLITHIC, MONOLITHIC_BALANCED, NESTED, NESTED_FILL, PHASED,
    RECOMPUTE,
};

/// Every schedule of a whole step.
pub const SCHEDULES: &[&Schedule] = &[
    &LLM_ONLY,
    &MONOLITHIC,
    &MONOLITHIC_BALANCED,
    &DISAGGREGATED,
    &PHASED,
    &RECOMPUTE,
    &BUBBLE_FILL,
    &NESTED,
    &NESTED_FILL,
];

/// Every order of the LLM's chunks.
pub const LLM_SCHEDULES: &[&LlmSchedule] = &[&ONE_F_ONE_B, &GPIPE, &INTERLEAVED, &ZB_H1, &ZB_H2];

impl Default for Options {
    fn default() -> Self {
        Options { llm: &ONE_F_ONE_B, llm_group: None, group: None, limits: Limits::default() }
    }
}

/// The schedule of that name.
///
/// # Errors
/// Where there is none, with the names there are.
pub fn schedule(name: &str) -> Result<&'static Schedule, ScheduleError> {
    Ok(names::find("schedule", name, SCHEDULES, |schedule| schedule.name())?)
}

/// The LLM schedule of that name.
///
/// # Errors
/// Where there is none, with the names there are.
pub fn llm_schedule(name: &str) -> Result<&'static LlmSchedule, ScheduleError> {
    Ok(names::find("LLM schedule", name, LLM_SCHEDULES, |schedule| schedule.name())?)
}
