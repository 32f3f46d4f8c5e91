//! What `bigmac plan` prints.

use super::settings::settings;
use crate::command::table::{GIB, heads, line, percent};
use bigmac::plan::{Counts, Found, Model, Request, Step, budget_text};
use bigmac_schedule::{ModuleKind, PerModule};
use serde_json::{Value, json};

/// The plans as one object.
pub(super) fn json(model: &str, device: &str, request: &Request<'_>, found: &Found) -> Value {
    let parameters: serde_json::Map<String, Value> = ModuleKind::ALL
        .into_iter()
        .map(|kind| (kind.name().to_owned(), request.model.parameters(kind).into()))
        .collect();
    json!({
        "model": model,
        "device": device,
        "devices": request.devices,
        "batch": request.batch,
        "sequence": request.model.llm.is_some().then_some(request.model.sequence),
        "parameters": parameters,
        "memory": request.device.usable(),
        "simulated": found.simulated,
        "bounded": found.bounded,
        "too_large": found.too_large,
        "plans": found.steps.iter().map(|step| plan(request, step)).collect::<Vec<Value>>(),
    })
}

fn plan(request: &Request<'_>, step: &Step) -> Value {
    let memory = step.memory.iter().map(|rank| {
        let kinds = rank.kinds().into_iter().chain([("total", rank.total())]);
        kinds.map(|(kind, bytes)| (kind.to_owned(), bytes.into())).collect::<serde_json::Map<String, Value>>()
    });
    let tokens: f64 =
        (0..step.layout.microbatches).map(|microbatch| request.model.tokens(microbatch) as f64).sum();
    let tokens = tokens * step.layout.replicas as f64 / step.seconds.total();
    json!({
        "schedule": step.schedule(),
        "llm": step.order.map(|order| order.llm.name()),
        "ranks": step.memory.len(),
        "chunks": step.layout.chunks,
        "replicas": step.layout.replicas,
        "devices": step.devices,
        "microbatches": step.layout.microbatches,
        "group": step.order.and_then(|order| order.group),
        "budget": step.order.map(|order| budget_text(&order.budget)),
        "recompute": names(&step.layout.recompute),
        "sharded": names(&step.layout.sharded),
        "time": step.seconds.total(),
        "seconds": { "pipeline": step.seconds.pipeline, "reduction": step.seconds.reduction,
            "update": step.seconds.update },
        "sequences_per_second": step.rate(),
        "tokens_per_second": tokens,
        "mfu": step.mfu(),
        "bubble_rate": step.bubble,
        "memory": memory.collect::<Vec<_>>(),
        "config": settings(request.model, step),
    })
}

fn names(modules: &PerModule<bool>) -> Vec<&'static str> {
    ModuleKind::ALL.into_iter().filter(|kind| modules[*kind]).map(ModuleKind::name).collect()
}

/// The first letters of modules, `-` for none.
fn letters(modules: &PerModule<bool>) -> String {
    let letters: String = names(modules).iter().filter_map(|name| name.chars().next()).collect();
    if letters.is_empty() { "-".to_owned() } else { letters.to_uppercase() }
}

const WIDTHS: [isize; 13] = [-20, -12, 6, 7, 9, 6, 7, 7, 10, 8, 7, 8, 9];

/// What a person reads.
pub(super) fn text(model: &str, request: &Request<'_>, found: &Found) -> String {
    let parameters = ModuleKind::ALL.into_iter().map(|kind| (kind, request.model.parameters(kind)));
    let parameters = parameters.filter(|(_, count)| *count > 0);
    let parameters: Vec<String> =
        parameters.map(|(kind, count)| format!("{kind} {}", billions(count))).collect();
    let mut text = format!(
        "{model} ({}) on {} x {}, {:.1} GiB each for the model; batch {} of {}\n\
         {} steps simulated; {} layouts cannot be among the best, {} do not fit\n\n",
        parameters.join(", "),
        request.devices,
        request.device.summary,
        request.device.usable() / GIB,
        request.batch,
        microbatch(request.model),
        found.simulated,
        found.bounded,
        found.too_large
    );
    if request.model.llm.is_none() {
        text += "Without an LLM there is no pipeline to schedule: each device is a replica that runs its items one after the other.\n\n";
    }
    let rate = if request.model.llm.is_some() { "seq/s" } else { "batch/s" };
    let names = format!("schedule|llm|ranks|chunks|replicas|group|again|split|time|{rate}|MFU|bubble|GiB");
    text += &heads(WIDTHS, &names);
    found.steps.iter().for_each(|step| text += &line(WIDTHS, cells(step)));
    text += "\nagain: modules whose layers are computed again in the backward; split: weights and gradients over the devices of \
             a node\n(E encoder, L LLM, G generator). GiB: the fullest rank. group: microbatches that share a slot.\n";
    if let Some(best) = found.steps.first() {
        text += &details(best);
        text += &match settings(request.model, best) {
            Some(settings) => format!("\n{settings}"),
            None => {
                "\n`bigmac train` does not train models without an LLM, so no configuration is printed.\n"
                    .into()
            }
        };
    }
    text
}

fn cells(step: &Step) -> [String; 13] {
    let group = step.order.and_then(|order| order.group);
    [
        step.schedule().unwrap_or("-").to_owned(),
        step.order.map_or("-", |order| order.llm.name()).to_owned(),
        step.memory.len().to_string(),
        step.layout.chunks.to_string(),
        step.layout.replicas.to_string(),
        group.map_or("-".to_owned(), |group| group.to_string()),
        letters(&step.layout.recompute),
        letters(&step.layout.sharded),
        format!("{:.3}s", step.seconds.total()),
        format!("{:.2}", step.rate()),
        percent(step.mfu()),
        percent(step.bubble),
        format!("{:.1}", step.fullest().total() as f64 / GIB),
    ]
}

/// What a microbatch is, for people.
fn microbatch(model: &Model) -> String {
    let items = |counts: &Counts, name: &str| match counts.most() {
        0 => None,
        most if matches!(counts, Counts::Each(_)) => Some(format!("{most} {name}")),
        most => Some(format!("up to {most} {name}")),
    };
    if model.llm.is_some() {
        return format!("{} tokens", model.sequence);
    }
    let items = [items(&model.images, "images"), items(&model.drawings, "drawings")];
    items.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn details(best: &Step) -> String {
    let seconds = &best.seconds;
    let widths = [-6, 13, 13, 13, 13, 13, 13, 13];
    let mut text = format!(
        "\nThe best: pipeline {:.3}s, gradients {:.3}s, update {:.3}s. GiB by rank:\n",
        seconds.pipeline, seconds.reduction, seconds.update
    );
    let kinds = best.fullest().kinds().map(|(kind, _)| kind);
    text += &heads(widths, &format!("rank|{}|total", kinds.join("|")));
    for (rank, memory) in best.memory.iter().enumerate() {
        let gib = |bytes: u64| format!("{:.2}", bytes as f64 / GIB);
        let [a, b, c, d, e, f] = memory.kinds().map(|(_, bytes)| gib(bytes));
        text += &line(widths, [rank.to_string(), a, b, c, d, e, f, gib(memory.total())]);
    }
    text
}

fn billions(count: u64) -> String {
    if count >= 100_000_000 {
        format!("{:.1}B", count as f64 / 1e9)
    } else {
        format!("{:.1}M", count as f64 / 1e6)
    }
}
