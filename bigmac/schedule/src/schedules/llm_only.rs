//! The LLM by itself: what encoder and generator are added to.

use crate::api::{Options, Schedule, ScheduleError};
use crate::step::{Table, Workload};

/// The LLM schedule alone. Items are left out: it runs [`Workload::llm_only`].
pub(crate) const LLM_ONLY: Schedule = Schedule {
    name: "llm",
    summary: "the LLM alone, without encoder and generator",
    is_whole: false,
    workload: Workload::llm_only,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    Ok(options.llm_table(workload, 0)?.with_step())
}
