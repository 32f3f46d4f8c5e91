//! What `bigmac plan` prints.

use std::fmt::Write;

use bigmac::plan::{Counts, Found, Model, Request, Step, budget_text, settings};
use bigmac_schedule::{ModuleKind, PerModule};
use serde_json::{Value, json};

const GIB: f64 = 1073741824.0;

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
    let tokens: usize =
        (0..step.layout.microbatches).map(|microbatch| request.model.tokens(microbatch)).sum();
    let tokens = (tokens * step.layout.replicas) as f64 / step.seconds.total();
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

/// What a person reads.
// Writing to a String cannot fail, so the results of writeln! carry nothing.
pub(super) fn text(model: &str, request: &Request<'_>, found: &Found) -> String {
    let mut text = String::new();
    let parameters = ModuleKind::ALL.into_iter().map(|kind| (kind, request.model.parameters(kind)));
    let parameters = parameters.filter(|(_, count)| *count > 0);
    let parameters: Vec<String> =
        parameters.map(|(kind, count)| format!("{kind} {}", billions(count))).collect();
    let _ = writeln!(
        text,
        "{model} ({}) on {} x {}, {:.1} GiB each for the model; batch {} of {}",
        parameters.join(", "),
        request.devices,
        request.device.summary,
        request.device.usable() / GIB,
        request.batch,
        microbatch(request.model)
    );
    let _ = writeln!(
        text,
        "{} steps simulated; {} layouts can't be among the best, {} don't fit\n",
        found.simulated, found.bounded, found.too_large
    );
    if request.model.llm.is_none() {
        text += "Without an LLM there is no pipeline to schedule: each device is a replica that runs its items one after the other.\n\n";
    }
    let _ = writeln!(
        text,
        "{:<20}{:<12}{:>6}{:>7}{:>9}{:>6}{:>7}{:>7}{:>10}{:>8}{:>7}{:>8}{:>9}",
        "schedule",
        "llm",
        "ranks",
        "chunks",
        "replicas",
        "group",
        "again",
        "split",
        "time",
        if request.model.llm.is_some() { "seq/s" } else { "batch/s" },
        "MFU",
        "bubble",
        "GiB"
    );
    for step in &found.steps {
        let group = step.order.and_then(|order| order.group);
        let group = group.map_or("-".to_owned(), |group| group.to_string());
        let _ = writeln!(
            text,
            "{:<20}{:<12}{:>6}{:>7}{:>9}{:>6}{:>7}{:>7}{:>9.3}s{:>8.2}{:>6.1}%{:>7.1}%{:>9.1}",
            step.schedule().unwrap_or("-"),
            step.order.map_or("-", |order| order.llm.name()),
            step.memory.len(),
            step.layout.chunks,
            step.layout.replicas,
            group,
            letters(&step.layout.recompute),
            letters(&step.layout.sharded),
            step.seconds.total(),
            step.rate(),
            100.0 * step.mfu(),
            100.0 * step.bubble,
            step.fullest().total() as f64 / GIB,
        );
    }
    let _ = writeln!(
        text,
        "\nagain: modules whose layers are computed again in the backward; split: weights and gradients over the devices of \
         a node\n(E encoder, L LLM, G generator). GiB: the fullest rank. group: microbatches that share a slot."
    );
    if let Some(best) = found.steps.first() {
        details(&mut text, best);
        let _ = match settings(request.model, best) {
            Some(settings) => write!(text, "\n{settings}"),
            None => writeln!(
                text,
                "\n`bigmac train` does not train models without an LLM, so no configuration is printed."
            ),
        };
    }
    text
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

fn details(text: &mut String, best: &Step) {
    let seconds = &best.seconds;
    let _ = writeln!(
        text,
        "\nThe best: pipeline {:.3}s, gradients {:.3}s, update {:.3}s. GiB by rank:",
        seconds.pipeline, seconds.reduction, seconds.update
    );
    let _ = write!(text, "{:<6}", "rank");
    for (kind, _) in best.fullest().kinds() {
        let _ = write!(text, "{kind:>13}");
    }
    let _ = writeln!(text, "{:>13}", "total");
    for (rank, memory) in best.memory.iter().enumerate() {
        let _ = write!(text, "{rank:<6}");
        for (_, bytes) in memory.kinds() {
            let _ = write!(text, "{:>13.2}", bytes as f64 / GIB);
        }
        let _ = writeln!(text, "{:>13.2}", memory.total() as f64 / GIB);
    }
}

fn billions(count: u64) -> String {
    if count >= 100_000_000 {
        format!("{:.1}B", count as f64 / 1e9)
    } else {
        format!("{:.1}M", count as f64 / 1e6)
    }
}
