//! All schedules by name. Adding one is a file that implements [`Schedule`] (or [`LlmSchedule`], for an order of the
//! LLM's chunks that any schedule can be built on) and a line in [`SCHEDULES`] (or [`LLM_SCHEDULES`]).

use crate::api::{LlmSchedule, Options, Schedule, ScheduleError};
use crate::check::Limits;
use crate::schedules::{
    BUBBLE_FILL, DISAGGREGATED, LLM_ONLY, MONOLITHIC, MONOLITHIC_BALANCED, NESTED, NESTED_FILL, PHASED,
    RECOMPUTE,
};
use crate::{names, orders};

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
pub const LLM_SCHEDULES: &[&LlmSchedule] = &[
    &orders::ONE_F_ONE_B,
    &orders::GPIPE,
    &orders::INTERLEAVED,
    &orders::ZB_H1,
    &orders::ZB_H2,
    &orders::ZB_V,
    &orders::DUALPIPE_V,
];

impl Default for Options {
    fn default() -> Self {
        Options { llm: &orders::ONE_F_ONE_B, llm_group: None, group: None, limits: Limits::default() }
    }
}

/// The schedule of that name.
///
/// # Errors
/// Where no name matches, with the known ones.
pub fn schedule(name: &str) -> Result<&'static Schedule, ScheduleError> {
    Ok(names::find("schedule", name, SCHEDULES, |schedule| schedule.name())?)
}

/// The LLM schedule of that name.
///
/// # Errors
/// Where no name matches, with the known ones.
pub fn llm_schedule(name: &str) -> Result<&'static LlmSchedule, ScheduleError> {
    Ok(names::find("LLM schedule", name, LLM_SCHEDULES, |schedule| schedule.name())?)
}
