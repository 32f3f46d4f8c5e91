//! What every rank measured, brought together by the hosts: nothing here waits for a device.

use super::TrainError;
use super::metrics::StepReport;
use crate::execute::Measured;
use bigmac_comm::Communicator;
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::PerModule;
use bigmac_schedule::render::Trace;
use std::collections::BTreeMap;

/// Peaks of all ranks, brought to every rank.
pub(super) fn collect_memory(
    ctx: &Context,
    comm: &dyn Communicator,
    saved: PerModule<usize>,
    report: &mut StepReport,
) -> Result<(), TrainError> {
    let scopes = ctx.memory().all_scopes();
    let mine: BTreeMap<String, usize> = scopes.iter().map(|s| (s.name().to_owned(), s.peak())).collect();
    let text = serde_json::to_vec(&(mine, saved)).unwrap_or_default();
    for text in gather_bytes(ctx, comm, &text)? {
        let (peaks, saved) = serde_json::from_slice(&text).unwrap_or_default();
        report.add_saved(saved);
        report.peak_bytes.push(peaks);
    }
    Ok(())
}

/// What a timeline shows of every rank, brought to every rank.
pub(super) fn collect_traces(
    ctx: &Context,
    comm: &dyn Communicator,
    measured: &Measured,
) -> Result<Vec<Trace>, TrainError> {
    let failed =
        |error| TrainError::Rank { rank: comm.rank(), message: format!("lost the measured step: {error}") };
    let trace = serde_json::to_vec(&measured.trace()).map_err(failed)?;
    let traces = gather_bytes(ctx, comm, &trace)?;
    traces.iter().map(|bytes| serde_json::from_slice(bytes).map_err(failed)).collect()
}

/// The bytes of every rank, in rank order.
fn gather_bytes(ctx: &Context, comm: &dyn Communicator, mine: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
    let ctx = &ctx.host();
    let length = Tensor::from_slice(ctx, &[mine.len() as u32], &[1])?;
    let lengths = comm.all_gather(ctx, &length)?;
    let all = comm.all_gather(ctx, &Tensor::from_slice(ctx, mine, &[mine.len()])?)?;
    let mut rest = all.as_slice::<u8>()?;
    let mut parts = Vec::with_capacity(comm.size());
    for &length in lengths.as_slice::<u32>()? {
        let (part, after) = rest.split_at(length as usize);
        parts.push(part.to_vec());
        rest = after;
    }
    Ok(parts)
}
