//! What every rank measured, brought together by the hosts: nothing here waits for a device.

use super::TrainError;
use super::metrics::StepReport;
use super::rank::Runner;
use crate::data::StepPlan;
use crate::execute::{Measured, Program, with_sizes};
use bigmac_comm::Communicator;
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::render::Trace;
use bigmac_schedule::{ModuleKind, PerModule};
use std::collections::BTreeMap;

impl Runner<'_> {
    /// Peaks of all ranks, brought to every rank.
    pub(super) fn collect_memory(
        &self,
        saved: PerModule<usize>,
        report: &mut StepReport,
    ) -> Result<(), TrainError> {
        let scopes = self.ctx.memory().all_scopes();
        let mine: BTreeMap<String, usize> = scopes.iter().map(|s| (s.name().to_owned(), s.peak())).collect();
        let saved: Vec<usize> = ModuleKind::ALL.iter().map(|&kind| saved[kind]).collect();
        let text = serde_json::to_vec(&(mine, saved)).unwrap_or_default();
        for text in gather_bytes(&self.ctx, self.comm, &text)? {
            let (peaks, saved): (BTreeMap<String, usize>, [usize; 3]) =
                serde_json::from_slice(&text).unwrap_or_default();
            let [encoder, llm, generator] = saved;
            report.add_saved(PerModule { encoder, llm, generator });
            report.peak_bytes.push(peaks);
        }
        Ok(())
    }

    /// True for the step that is drawn: one after the first steps' noise is over, where there is one.
    pub(super) fn is_drawn(&self, step: u64) -> bool {
        const MEASURED_STEP: u64 = 20;
        let last = self.shared.session.config.train.steps.saturating_sub(1);
        step == MEASURED_STEP.min(last)
    }

    /// Draws a measured step beside its simulation.
    pub(super) fn draw_timeline(
        &self,
        step: u64,
        plan: &StepPlan,
        mut program: Program,
        measured: &Measured,
    ) -> Result<(), TrainError> {
        let rank = self.comm.rank();
        let failed = |error| TrainError::Rank { rank, message: format!("lost the measured step: {error}") };
        let trace = serde_json::to_vec(&measured.trace()).map_err(failed)?;
        let traces = gather_bytes(&self.ctx, self.comm, &trace)?;
        if rank == 0 {
            let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(failed);
            let traces: Vec<Trace> = traces.iter().map(read).collect::<Result<_, _>>()?;
            program.workload = with_sizes(&self.shared.session.shape, plan, program.workload)?;
            self.shared.observer.timeline(self.shared.folder, &program, &traces, step)?;
        }
        Ok(())
    }
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
