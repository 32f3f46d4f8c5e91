//! ZB-H2 (Zero Bubble, arXiv 2401.10241, section 2.2): no bubble where F = B = W, for twice 1F1B's memory.

use super::{one_chunk, split};
use crate::api::{LlmOptions, LlmSchedule, ScheduleError};
use crate::step::{Table, Workload};

/// Stage `s` of `p` runs `2 (p - s) - 1` forwards ahead and keeps up to `2 s` weight gradients for the end: at most
/// `2 p - 1` microbatches are live, and equal stages each take N R + (p - 1)(F + B - 2 W) from their first start to
/// their last end (N R where that is less). Any costs run; W = F = B is what the order is made for.
#[derive(Debug)]
pub struct ZbH2;

impl LlmSchedule for ZbH2 {
    fn name(&self) -> &'static str {
        "zb-h2"
    }

    fn summary(&self) -> &'static str {
        "zero bubble: forwards fill the bubble's start too; at most 2p - 1 microbatches live"
    }

    fn build(&self, workload: &Workload, options: LlmOptions) -> Result<Table, ScheduleError> {
        one_chunk(workload, self.name())?;
        let p = workload.ranks();
        let order =
            |stage| split::order(workload, stage, 2 * (p - stage) - 1 + options.extra_warmup, 2 * stage);
        Ok(Table { ranks: (0..p).map(order).collect() })
    }
}
