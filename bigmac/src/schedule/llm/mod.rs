//! Orders of the LLM's chunks, one file each: what encoder and generator are added to.

mod gpipe;
mod interleaved;
mod one_f_one_b;
mod split;
mod zb_h1;
mod zb_h2;

pub(super) use gpipe::GPipe;
pub(super) use interleaved::Interleaved;
pub(super) use one_f_one_b::OneFOneB;
pub(super) use zb_h1::ZbH1;
pub(super) use zb_h2::ZbH2;

use super::api::ScheduleError;
use super::workload::Workload;

/// Refuses several chunks per rank for an order that runs one.
fn one_chunk(workload: &Workload, schedule: &'static str) -> Result<(), ScheduleError> {
    match workload.chunks_per_rank() {
        1 => Ok(()),
        chunks => Err(ScheduleError::Chunks { schedule, chunks }),
    }
}
