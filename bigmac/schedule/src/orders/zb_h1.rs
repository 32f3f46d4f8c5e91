//! ZB-H1 (Zero Bubble, arXiv 2401.10241, section 2.1): 1F1B with the backward split, in 1F1B's memory.

use super::{one_chunk, split};
use crate::api::{LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Table, Workload};

/// Stage `s` of `p` runs `p - s` forwards ahead and keeps up to `s` weight gradients for the end: at most `p`
/// microbatches are live, and equal stages each take N R + (p - 1)(F + B - W) from their first start to their last
/// end. Any costs run; W = F = B is what the order is made for.
#[derive(Debug)]
pub struct ZbH1;

impl LlmSchedule for ZbH1 {
    fn name(&self) -> &'static str {
        "zb-h1"
    }

    fn summary(&self) -> &'static str {
        "zero bubble: weight gradients fill the bubble's end; at most p microbatches live"
    }

    fn build(&self, workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
        one_chunk(workload, self.name())?;
        let p = workload.ranks();
        let order = |stage| split::order(workload, stage, p - stage + options.extra_warmup, stage);
        Ok(Table { ranks: (0..p).map(order).collect() })
    }
}
