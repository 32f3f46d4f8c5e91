//! Orders of the LLM's chunks, one file each: what encoder and generator are added to.

mod gpipe;
mod interleaved;
mod one_f_one_b;
mod split;
mod zb_h1;
mod zb_h2;

pub(crate) use gpipe::GPipe;
pub(crate) use interleaved::Interleaved;
pub(crate) use one_f_one_b::OneFOneB;
pub(crate) use zb_h1::ZbH1;
pub(crate) use zb_h2::ZbH2;

use crate::api::ScheduleError;
use crate::step::Workload;

/// Refuses several chunks per rank for an order that runs one.
fn one_chunk(workload: &Workload, schedule: &'static str) -> Result<(), ScheduleError> {
    match workload.chunks_per_rank() {
        1 => Ok(()),
        chunks => Err(ScheduleError::Chunks { schedule, chunks }),
    }
}
