//! Steps of a model without an LLM. There is nothing to cut into pipeline stages: each device holds a replica, runs its
//! share of the items one after the other, forward and backward, and the replicas add up their gradients.

use super::error::PlanError;
use super::found::{Found, nothing_fits};
use super::layout::{Cut, Layout, item_cost, working};
use super::memory::{Holding, RankMemory};
use super::model::Counts;
use super::request::{Request, budget_text};
use super::step::{Seconds, Step, after};
use super::tasks::{even_replicas, plain};
use super::ways::ways_to_save;
use crate::value::{ValueError, require};
use bigmac_schedule::{ModuleKind, PerModule};

/// The best ways to run a step, one for each way to save memory.
pub(super) fn search(request: &Request<'_>) -> Result<Found, PlanError> {
    check(request).map_err(PlanError::at("the request"))?;
    let replicas = even_replicas(request, 1).map_err(|reason| {
        let message = format!("no layout of {} devices is possible: {reason}", request.devices);
        PlanError::Shape(message + "; change --devices or --batch")
    })?;
    let layout = plain(request, 1, 1, replicas);
    let ways = ways_to_save(request.model, request.devices).into_iter();
    let steps: Vec<Step> =
        ways.map(|(recompute, sharded)| step(request, Layout { recompute, sharded, ..layout })).collect();
    let simulated = steps.len();
    let fits = |step: &Step| step.fullest().total() as f64 <= request.device.usable();
    let (mut steps, large): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(fits);
    if let (true, Some(least)) = (steps.is_empty(), large.iter().min_by_key(|step| step.fullest().total())) {
        return Err(nothing_fits(request, large.len(), least));
    }
    steps.sort_by(|a, b| a.seconds.total().total_cmp(&b.seconds.total()));
    steps.truncate(request.top);
    Ok(Found { steps, simulated, bounded: 0, too_large: large.len() })
}

/// Checks that nothing is asked of a pipeline, which there is none of.
fn check(request: &Request<'_>) -> Result<(), ValueError> {
    for (key, given) in [("ranks", &request.ranks), ("chunks", &request.chunks)] {
        let other = given.iter().find(|_| !given.contains(&1));
        let wanted = "1 for a model without an [llm], of which each device holds a replica";
        other.map_or(Ok(()), |other| require(false, key, other, wanted))?;
    }
    let none = "none for a model without an [llm], which no schedule runs";
    require(request.groups.is_empty(), "group", format!("{:?}", request.groups), none)?;
    let free = request.budget == PerModule::default();
    require(free, "budget", budget_text(&request.budget), none)?;
    require(request.cut == Cut::Even, "balance-llm", true, "left out for a model without an [llm]")
}

fn step(request: &Request<'_>, layout: Layout) -> Step {
    let (model, device) = (request.model, request.device);
    let (learns, working) = (model.learns(), working(model, &layout));
    let mut memory = RankMemory::default();
    let mut holdings = Vec::new();
    let mut pipeline = 0.0;
    for (kind, items, learns) in [
        (ModuleKind::Encoder, &model.images, learns.encoder),
        (ModuleKind::Generator, &model.drawings, learns.generator),
    ] {
        if items.most() == 0 {
            continue;
        }
        let costed = item_cost(model, device, &layout, kind, false);
        let item = costed.item(learns);
        pipeline += total(items, layout.microbatches) * (item.forward + item.backward);
        let (parameters, trained) = (costed.parameters, costed.trained);
        let holding = Holding { kind, parameters, trained, devices: layout.replicas as u64 };
        memory.hold(&holding, &model.bytes, holding.split(device, &layout));
        // One item is done before the next begins.
        memory.activations = memory.activations.max(costed.saved);
        memory.working = memory.working.max(working[kind]);
        holdings.push(holding);
    }
    Step {
        layout,
        order: None,
        devices: layout.devices(),
        seconds: Seconds { pipeline, ..after(model, device, &layout, &[holdings]) },
        bubble: 0.0,
        memory: vec![memory],
        flops: model.flops(layout.microbatches) * layout.replicas as f64,
        peak: device.peak,
    }
}

/// Items of so many microbatches.
fn total(items: &Counts, microbatches: usize) -> f64 {
    (0..microbatches).map(|microbatch| items.of(microbatch) as f64).sum()
}
