//! A schedule in a layout: the time of a step and what it takes.

use super::device::Device;
use super::error::PlanError;
use super::layout::{Estimate, Layout};
use super::memory::{Holding, RankMemory, holdings, rank_memory};
use super::model::Model;
use bigmac_schedule::simulate;
use bigmac_schedule::{
    Budget, LlmSchedule, ModuleKind, Options, PerModule, Schedule, ScheduleError, Table, Workload,
};
use bigmac_schedule::{ValidateError, validate};

/// A step as it would run.
#[derive(Clone, Debug)]
pub struct Step {
    /// How it is laid out.
    pub layout: Layout,
    /// What its pipeline runs; none for a model without an LLM, where each device runs its items one after the other.
    pub order: Option<Order>,
    /// Devices that it takes: some schedules lay out ranks of their own.
    pub devices: usize,
    /// Seconds of the pipeline, of the reduction of gradients after it, of the optimizer's update.
    pub seconds: Seconds,
    /// Idle share as Zero Bubble counts it, of the pipeline.
    pub bubble: f64,
    /// By rank.
    pub memory: Vec<RankMemory>,
    /// Model FLOPs of all pipelines together.
    pub flops: f64,
    /// Peak of a device, FLOP/s.
    pub peak: f64,
}

/// What a pipeline runs.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The schedule.
    pub schedule: &'static Schedule,
    /// The order of the LLM's chunks under it.
    pub llm: &'static LlmSchedule,
    /// Microbatches that share a slot, where it is not the schedule's choice.
    pub group: Option<usize>,
    /// What activations were to stay within.
    pub budget: PerModule<Option<Budget>>,
}

/// Where a step's time goes; one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds {
    /// Forwards and backwards of all microbatches.
    pub pipeline: f64,
    /// Adding up gradients over replicas, and handing out new weights.
    pub reduction: f64,
    /// The optimizer's update.
    pub update: f64,
}

impl Seconds {
    /// All together.
    pub fn total(&self) -> f64 {
        self.pipeline + self.reduction + self.update
    }
}

impl Step {
    /// The name of its schedule, where it has one.
    pub fn schedule(&self) -> Option<&'static str> {
        self.order.map(|order| order.schedule.name())
    }

    /// Microbatches of a step over all replicas.
    pub fn batch(&self) -> usize {
        self.layout.microbatches * self.layout.replicas
    }

    /// Microbatches per second.
    pub fn rate(&self) -> f64 {
        self.batch() as f64 / self.seconds.total()
    }

    /// Model FLOPs utilisation: the share of all devices' peak that the model's own operations take.
    pub fn mfu(&self) -> f64 {
        self.flops / (self.seconds.total() * self.devices as f64 * self.peak)
    }

    /// The fullest rank.
    pub fn fullest(&self) -> RankMemory {
        self.memory.iter().copied().max_by_key(RankMemory::total).unwrap_or_default()
    }
}

/// Builds a schedule for a layout and runs it on the clock.
///
/// # Errors
/// [`PlanError::Schedule`] where the schedule does not exist for the layout.
pub fn step(
    estimate: &Estimate<'_>,
    schedule: &'static Schedule,
    options: &Options,
) -> Result<(Step, Table), PlanError> {
    let workload = schedule.workload(&estimate.workload, options.llm);
    let table = schedule.build(&workload, options)?;
    if ModuleKind::ALL.into_iter().any(|kind| options.limits.budget[kind].is_some()) {
        within_budget(schedule, &table, &workload, options)?;
    }
    let holders = holdings(estimate, &workload, &table);
    let apart = apart(estimate, &holders);
    // Once apart they stay so, even where a schedule answers slower items by running them on more ranks.
    if apart != estimate.apart() {
        let spread = Estimate::with_links(estimate.model, estimate.device, estimate.layout, apart)?;
        return step(&spread, schedule, options);
    }
    let simulated = simulate(&table, &workload)
        .map_err(|source| PlanError::Simulate { schedule: schedule.name(), source })?;
    let memory = rank_memory(estimate, &workload, &table, &simulated, &holders);
    let layout = estimate.layout;
    let step = Step {
        layout,
        order: Some(Order {
            schedule,
            llm: options.llm,
            group: options.group,
            budget: options.limits.budget,
        }),
        devices: table.ranks.len() * layout.replicas,
        seconds: Seconds {
            pipeline: simulated.time(),
            ..after(estimate.model, estimate.device, &layout, &holders)
        },
        bubble: simulated.bubble_rate(),
        memory,
        flops: estimate.model.flops(layout.microbatches) * layout.replicas as f64,
        peak: estimate.device.peak,
    };
    Ok((step, table))
}

/// Of schedules that cannot trade memory for time, the budget is only checked.
fn within_budget(
    schedule: &'static Schedule,
    table: &Table,
    workload: &Workload,
    options: &Options,
) -> Result<(), ScheduleError> {
    match validate(table, workload, &options.limits) {
        Err(ValidateError::Budget { module, peak, budget, .. }) => {
            Err(ScheduleError::Budget { schedule: schedule.name(), module, asked: budget, minimum: peak })
        }
        _ => Ok(()),
    }
}

/// Sharded modules whose devices are replicas of one rank, on other nodes.
fn apart(estimate: &Estimate<'_>, holders: &[Vec<Holding>]) -> PerModule<bool> {
    let ranks = |kind: ModuleKind| holders.iter().filter(|rank| rank.iter().any(|h| h.kind == kind)).count();
    let is_apart = |kind| {
        let (ranks, all) = (ranks(kind), holders.len());
        let few = ranks > 0 && ranks < all.min(estimate.device.devices_per_node);
        estimate.layout.sharded[kind] && (few || estimate.apart()[kind])
    };
    PerModule {
        encoder: is_apart(ModuleKind::Encoder),
        llm: false,
        generator: is_apart(ModuleKind::Generator),
    }
}

/// What follows the pipeline. Gradients are added up in rings (each device sends and receives (n-1)/n of the bytes:
/// gradients are spread, new weights gathered); the update reads and writes every state once. Neither is hidden under
/// anything.
pub(super) fn after(model: &Model, device: &Device, layout: &Layout, holdings: &[Vec<Holding>]) -> Seconds {
    let bytes = &model.bytes;
    if let Some(measured) = &device.measured {
        return Seconds { pipeline: 0.0, reduction: measured.reduction, update: measured.update };
    }
    let link = device.bandwidth(device.link(holdings.len() * layout.replicas));
    let memory = device.memory_bandwidth * device.efficiency.memory;
    let most = |seconds: &dyn Fn(&Holding) -> f64| {
        let ranks = holdings.iter();
        ranks.map(|rank| rank.iter().map(seconds).sum()).fold(0.0, f64::max)
    };
    let reduction = |holding: &Holding| {
        // Within a node, sharded gradients have been added up with every item.
        let split = holding.split(device, layout) as f64;
        let others = holding.devices as f64 / split;
        let moved = (holding.trained * (bytes.gradient + bytes.value) as u64) as f64 / split;
        moved * (others - 1.0).max(0.0) / others / link
    };
    let update = |holding: &Holding| {
        let touched = 2 * bytes.optimizer + bytes.gradient + bytes.value;
        (holding.trained * touched as u64) as f64 / holding.devices as f64 / memory
    };
    Seconds { pipeline: 0.0, reduction: most(&reduction), update: most(&update) }
}
