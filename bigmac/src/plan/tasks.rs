//! Every schedule on every layout that divides.

use super::error::PlanError;
use super::layout::{Estimate, Layout};
use super::memory::llm_holdings;
use super::request::Request;
use super::step::after;
use super::ways::ways_to_save;
use crate::sizes::Llm;
use bigmac_schedule::work_bound;
use bigmac_schedule::{
    Budget, Limits, LlmSchedule, Options, PerModule, Schedule, ScheduleError, UniformCosts, Workload,
    registry,
};

/// A schedule on layouts of the same ranks, chunks and replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub schedule: &'static Schedule,
    pub traits: Traits,
    /// Saving nothing.
    pub layout: Layout,
    /// A time that no variant can beat.
    pub bound: f64,
}

/// What makes a difference to a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// The order of the LLM's chunks.
    pub orders: bool,
    /// Budgets.
    pub budgets: bool,
    /// It adds ranks to the LLM's.
    adds_ranks: bool,
}

impl Traits {
    /// Found out on a small step.
    fn of(schedule: &Schedule) -> Result<Traits, PlanError> {
        let costs = UniformCosts {
            forward: 1.0,
            backward_input: 1.0,
            backward_weight: 1.0,
            encoder_forward: 1.0,
            encoder_backward: 2.0,
            ..UniformCosts::default()
        };
        let given = Workload::uniform(2, 1, 6, 2, costs, 0.0)?;
        let workload = schedule.workload(&given, Options::default().llm);
        let build = |llm: &'static LlmSchedule, limits| {
            schedule.build(&workload, &Options { llm, limits, ..Options::default() })
        };
        let nothing = PerModule { encoder: Some(Budget::Microbatches(0.0)), ..PerModule::default() };
        let refused = build(Options::default().llm, Limits { budget: nothing, ..Limits::default() });
        let mut tables = registry::LLM_SCHEDULES.iter().filter_map(|llm| build(llm, Limits::default()).ok());
        let first = tables.next();
        Ok(Traits {
            orders: tables.any(|table| Some(&table) != first.as_ref()),
            budgets: matches!(refused, Err(ScheduleError::Budget { .. })),
            adds_ranks: workload.ranks() > given.ranks(),
        })
    }
}

/// All tasks, and why other layouts are none.
pub(super) fn tasks(request: &Request<'_>, llm: &Llm) -> Result<(Vec<Task>, Vec<String>), PlanError> {
    let (model, devices) = (request.model, request.devices);
    let traits: Vec<(&'static Schedule, Traits)> = request
        .schedules
        .iter()
        .map(|schedule| Ok((*schedule, Traits::of(schedule)?)))
        .collect::<Result<_, PlanError>>()?;
    let all: Vec<usize> = (1..=devices.min(llm.layers)).collect();
    let (mut tasks, mut reasons) = (Vec::new(), Vec::new());
    for ranks in if request.ranks.is_empty() { &all } else { &request.ranks } {
        for chunks in &request.chunks {
            if ranks.saturating_mul(*chunks) > llm.layers {
                let layers = llm.layers;
                reasons.push(format!("{layers} layers cannot be cut into {ranks} x {chunks} chunks"));
                continue;
            }
            let even = even_replicas(request, *ranks);
            let estimate = match &even {
                Ok(replicas) => {
                    Some(Estimate::new(model, request.device, plain(request, *ranks, *chunks, *replicas))?)
                }
                Err(reason) => {
                    reasons.push(reason.clone());
                    None
                }
            };
            for (schedule, traits) in &traits {
                let found = match &estimate {
                    _ if traits.adds_ranks => {
                        if *chunks > 1 {
                            None
                        } else {
                            fewer_replicas(request, schedule, *ranks)?
                        }
                    }
                    Some(estimate) => Some((estimate.layout, bound(estimate, schedule, &request.llms))),
                    None => None,
                };
                if let Some((layout, bound)) = found {
                    tasks.push(Task { schedule, traits: *traits, layout, bound });
                }
            }
        }
    }
    reasons.dedup();
    // Of all the numbers of ranks that do not divide, a few say enough.
    reasons.truncate(3);
    Ok((tasks, reasons))
}

pub(super) fn plain(request: &Request<'_>, ranks: usize, chunks: usize, replicas: usize) -> Layout {
    let (recompute, sharded) = (PerModule::default(), PerModule::default());
    let (cut, microbatches) = (request.cut, request.batch / replicas);
    Layout { ranks, chunks, replicas, microbatches, cut, recompute, sharded }
}

/// How many pipelines of so many ranks all devices are.
pub(super) fn even_replicas(request: &Request<'_>, ranks: usize) -> Result<usize, String> {
    let (devices, batch) = (request.devices, request.batch);
    let replicas = devices / ranks;
    if replicas == 0 || !devices.is_multiple_of(ranks) {
        Err(format!("{ranks} ranks do not divide {devices} devices"))
    } else if !batch.is_multiple_of(replicas) {
        Err(format!("a batch of {batch} does not divide over the {replicas} replicas of {ranks} ranks"))
    } else {
        Ok(replicas)
    }
}

/// For a schedule that adds ranks to the LLM's: as many pipelines as devices and batch allow.
fn fewer_replicas(
    request: &Request<'_>,
    schedule: &Schedule,
    ranks: usize,
) -> Result<Option<(Layout, f64)>, PlanError> {
    for replicas in (1..=request.devices / ranks).rev() {
        if !request.batch.is_multiple_of(replicas) {
            continue;
        }
        let layout = plain(request, ranks, 1, replicas);
        let estimate = Estimate::new(request.model, request.device, layout)?;
        let workload = schedule.workload(&estimate.workload, Options::default().llm);
        if workload.ranks() * replicas <= request.devices {
            return Ok(Some((layout, bound(&estimate, schedule, &request.llms))));
        }
    }
    Ok(None)
}

/// A time that no variant of this layout can beat: that of its work and, where the LLM's chunks stay on their ranks, of
/// what follows them, under the order that has them where that is least.
fn bound(estimate: &Estimate<'_>, schedule: &Schedule, llms: &[&'static LlmSchedule]) -> f64 {
    let under = |llm: &LlmSchedule| {
        let workload = schedule.workload(&estimate.workload, llm);
        let holdings =
            if workload.chain().is_none() { llm_holdings(estimate, &workload) } else { Vec::new() };
        let after = after(estimate.model, estimate.device, &estimate.layout, &holdings);
        work_bound(&workload) + after.reduction + after.update
    };
    let mut least = f64::INFINITY;
    for (index, llm) in llms.iter().enumerate() {
        if llms[..index].iter().all(|other| other.placement() != llm.placement()) {
            least = least.min(under(llm));
        }
    }
    least
}

impl Task {
    /// The layout with everything that saves memory, and the others, the least work first.
    pub fn variants<'a>(
        &self,
        request: &Request<'a>,
    ) -> Result<(Estimate<'a>, Vec<Estimate<'a>>), PlanError> {
        let estimate = |(recompute, sharded)| {
            Estimate::new(request.model, request.device, Layout { recompute, sharded, ..self.layout })
        };
        let mut ways = ways_to_save(request.model, request.devices);
        let everything = ways.pop().unwrap_or_default();
        let mut variants: Vec<(f64, Estimate<'a>)> = ways
            .into_iter()
            .map(|way| estimate(way).map(|estimate| (work_bound(&estimate.workload), estimate)))
            .collect::<Result<_, _>>()?;
        variants.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok((estimate(everything)?, variants.into_iter().map(|(_, estimate)| estimate).collect()))
    }

    /// Budgets to try where memory is short, in microbatches.
    pub fn smaller_budgets(&self) -> impl Iterator<Item = PerModule<Option<Budget>>> + use<> {
        self.encoder_budgets([2.0, 1.0])
    }

    /// Budgets to try where there is time to win, in microbatches.
    pub fn larger_budgets(&self) -> impl Iterator<Item = PerModule<Option<Budget>>> + use<> {
        let llm = Some(Budget::Microbatches(2.0 * self.layout.ranks as f64));
        let llm = self.traits.budgets.then_some(PerModule { llm, ..PerModule::default() });
        llm.into_iter().chain(self.encoder_budgets([8.0]))
    }

    fn encoder_budgets<const N: usize>(
        &self,
        counts: [f64; N],
    ) -> impl Iterator<Item = PerModule<Option<Budget>>> + use<N> {
        let counts = counts.into_iter().take(if self.traits.budgets { N } else { 0 });
        counts.map(|count| PerModule { encoder: Some(Budget::Microbatches(count)), ..PerModule::default() })
    }
}
