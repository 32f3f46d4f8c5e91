//! The evaluation of BigMac (arXiv 2605.25451) redone on paper: nested schedules against the others, on the same
//! layout.

use super::device::Device;
use super::error::PlanError;
use super::layout::{Cut, Estimate, Layout};
use super::model::Model;
use super::step::{Step, step};
use bigmac_schedule::memory::peak_microbatches;
use bigmac_schedule::{
    Budget, LlmSchedule, Module, Op, Options, PerModule, Schedule, ScheduleError, registry,
};

/// What is compared on.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// What is trained.
    pub model: &'a Model,
    /// On what.
    pub device: &'a Device,
    /// Ranks of a pipeline; a schedule that lays out more of them is compared by rank-seconds.
    pub ranks: usize,
    /// Pipelines.
    pub replicas: usize,
    /// The order of the LLM's chunks, one chunk per rank.
    pub llm: &'static LlmSchedule,
}

/// A schedule on this setting.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Its step.
    pub step: Step,
    /// Whether every rank's memory suffices.
    pub fits: bool,
}

impl Compared {
    /// Device-seconds of the pipelines: what the step costs, whatever the number of devices.
    pub fn cost(&self) -> f64 {
        self.step.seconds.pipeline * self.step.devices as f64
    }
}

/// Every schedule of a whole step on so many microbatches, on the same terms: the last LLM chunk has fewer layers to
/// make up for the output matrix, LLM layers are computed again in the backward, all else is saved. A schedule that
/// runs the generator on all ranks splits its weights over a node's devices (none holds them all beside the rest);
/// others hold what they run. Where a schedule can trade memory for time, the LLM may keep as many microbatches as
/// under `nested`.
///
/// # Errors
/// [`PlanError::Shape`] for more ranks than layers; none for schedules that do not exist for the order, which are left
/// out.
pub fn compare(setting: &Setting<'_>, microbatches: usize) -> Result<Vec<Compared>, PlanError> {
    let layout = Layout {
        ranks: setting.ranks,
        chunks: 1,
        replicas: setting.replicas,
        microbatches,
        cut: Cut::Balanced,
        recompute: PerModule { llm: true, ..PerModule::default() },
        sharded: PerModule::default(),
    };
    let options = Options { llm: setting.llm, ..Options::default() };
    let nested = registry::schedule("nested")?;
    let kept = on_terms(setting, layout, nested, &options)?.map(|(_, llm)| llm);
    let mut roomy = options;
    roomy.limits.budget.llm = kept.map(Budget::Microbatches);
    let mut all = Vec::new();
    for schedule in registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()) {
        let usual = on_terms(setting, layout, schedule, &options)?;
        let roomy = match on_terms(setting, layout, schedule, &roomy) {
            Err(PlanError::Schedule(ScheduleError::Budget { .. })) => None,
            other => other?,
        };
        let steps = [usual, roomy].into_iter().flatten().map(|(step, _)| step);
        if let Some(step) = steps.min_by(|a, b| a.seconds.pipeline.total_cmp(&b.seconds.pipeline)) {
            let fits = step.fullest().total() as f64 <= setting.device.usable();
            all.push(Compared { step, fits });
        }
    }
    Ok(all)
}

/// The step, and the most microbatches of the LLM that a rank keeps; none where the schedule does not exist for the
/// order.
fn on_terms(
    setting: &Setting<'_>,
    layout: Layout,
    schedule: &'static Schedule,
    options: &Options,
) -> Result<Option<(Step, f64)>, PlanError> {
    let run = |layout: Layout| {
        let estimate = Estimate::new(setting.model, setting.device, layout)?;
        let (step, table) = match step(&estimate, schedule, options) {
            Err(PlanError::Schedule(error)) if error.is_about_the_layout() => return Ok(None),
            other => other?,
        };
        Ok::<_, PlanError>(Some((step, table, schedule.workload(&estimate.workload, options.llm))))
    };
    let draws =
        |ops: &Vec<Op>| ops.iter().any(|op| matches!(op, Op::Compute { module: Module::Generator(_), .. }));
    let Some(mut ran) = run(layout)? else { return Ok(None) };
    let (_, table, workload) = &ran;
    if workload.chain().is_none() && table.ranks.iter().filter(|ops| draws(ops)).count() > 1 {
        let sharded = PerModule { generator: true, ..layout.sharded };
        if let Some(split) = run(Layout { sharded, ..layout })? {
            ran = split;
        }
    }
    let (step, table, workload) = ran;
    let peaks = peak_microbatches(&table, &workload);
    Ok(Some((step, peaks.iter().map(|peak| peak.llm).fold(0.0, f64::max))))
}
