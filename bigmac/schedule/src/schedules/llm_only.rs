//! The LLM by itself: what encoder and generator are added to.

use crate::api::{Options, Schedule, ScheduleError};
use crate::step::{Table, Workload};

/// The LLM schedule alone. Items are left out: it runs [`Workload::llm_only`].
#[derive(Debug)]
pub struct LlmOnly;

impl Schedule for LlmOnly {
    fn name(&self) -> &'static str {
        "llm"
    }

    fn summary(&self) -> &'static str {
        "the LLM alone, without encoder and generator"
    }

    fn build(&self, workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
        Ok(options.llm_table(workload, 0)?.with_step())
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn workload(&self, workload: &Workload) -> Workload {
        workload.llm_only()
    }
}
