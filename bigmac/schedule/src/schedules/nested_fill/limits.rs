//! What ranks may hold, and what a step needs at least.

use super::tasks::MICROBATCH;
use crate::api::ScheduleError;
use crate::check::{Budget, Limits, UnknownSize};
use crate::clock::largest_first;
use crate::clock::memory::share;
use crate::step::{Item, Microbatch, Module, ModuleKind, PerModule, Rank, Unit, Workload};

/// Encoder activations of a rank, in microbatches, where no budget is given.
const ENCODER: f64 = 4.0;

/// What each rank may hold, in 1 / [`MICROBATCH`] of a microbatch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Room {
    /// LLM activations, by rank.
    pub llm: Vec<u64>,
    /// Encoder activations of any rank.
    pub encoder: u64,
    /// Generator activations of any rank; plans hold one item at a time.
    pub generator: u64,
}

impl Room {
    /// The room that budgets leave.
    ///
    /// # Errors
    /// Where a budget is below what any order needs, or is in bytes and a microbatch's bytes are not known.
    pub(crate) fn new(
        workload: &Workload,
        limits: &Limits,
        schedule: &'static str,
    ) -> Result<Room, ScheduleError> {
        let mut given = PerModule::<Option<f64>>::default();
        for module in ModuleKind::ALL {
            let Some(budget) = limits.budget[module] else { continue };
            let size = limits.microbatch_bytes[module];
            let asked = microbatches(budget, size).ok_or(UnknownSize { module, budget })?;
            let minimum = minimum(workload, module);
            // As exact as peaks are counted.
            if asked + 1e-9 < minimum {
                let minimum = in_unit(minimum, budget, size);
                return Err(ScheduleError::Budget { schedule, module, asked: budget, minimum });
            }
            given[module] = Some(asked);
        }
        let parts = |microbatches: f64| ((microbatches + 1e-9) * MICROBATCH) as u64;
        let llm =
            (0..workload.ranks()).map(|rank| parts(given.llm.unwrap_or_else(|| usual_llm(workload, rank))));
        Ok(Room {
            llm: llm.collect(),
            encoder: parts(
                given.encoder.unwrap_or_else(|| ENCODER.max(minimum(workload, ModuleKind::Encoder))),
            ),
            generator: parts(given.generator.unwrap_or(1.0)),
        })
    }
}

/// What 1F1B (interleaved 1F1B, where ranks hold several chunks) keeps on a rank, and one microbatch more, whose weight
/// gradients wait.
fn usual_llm(workload: &Workload, rank: usize) -> f64 {
    let (p, v) = (workload.ranks(), workload.chunks_per_rank());
    if v == 1 {
        return (p - rank + 1) as f64;
    }
    (2 * (p - 1 - rank) + (v - 1) * p + 1) as f64 / v as f64 + 1.0
}

/// `None` where bytes are given and a microbatch's size is not.
fn microbatches(budget: Budget, size: Option<u64>) -> Option<f64> {
    match (budget, size) {
        (Budget::Microbatches(count), _) => Some(count),
        (Budget::Bytes(_), Some(0)) => Some(f64::MAX / MICROBATCH / 2.0),
        (Budget::Bytes(bytes), Some(size)) => Some(bytes as f64 / size as f64),
        (Budget::Bytes(_), None) => None,
    }
}

fn in_unit(microbatches: f64, budget: Budget, size: Option<u64>) -> Budget {
    match budget {
        Budget::Microbatches(_) => Budget::Microbatches(microbatches),
        Budget::Bytes(_) => Budget::Bytes((microbatches * size.unwrap_or(0) as f64).ceil() as u64),
    }
}

/// The least that one rank holds at some time, in microbatches. All items of a microbatch are live when the LLM reads
/// them, all chunks of the LLM when its backward begins; drawings come one at a time.
pub(super) fn minimum(workload: &Workload, module: ModuleKind) -> f64 {
    let learning = workload.microbatches().filter(|microbatch| workload.has_backward(module, *microbatch));
    let least = learning.map(|microbatch| match module {
        ModuleKind::Llm => 1.0,
        ModuleKind::Generator => {
            let items = workload.items(module, microbatch);
            items.map(|item| part(workload, Module::GENERATOR, item)).fold(0.0, f64::max)
        }
        ModuleKind::Encoder => {
            let shares = even_shares(workload, microbatch, &mut vec![0.0; workload.ranks()]);
            let mut held = vec![0.0; workload.ranks()];
            shares.into_iter().for_each(|(item, rank)| held[rank] += part(workload, Module::ENCODER, item));
            held.into_iter().fold(0.0, f64::max)
        }
    });
    least.fold(0.0, f64::max)
}

/// Encoder items of a microbatch shared over the ranks so that the one that holds most holds little: largest first,
/// each to the rank that holds least; among equals to the one that has least `work` so far, which is added to.
pub(super) fn even_shares(
    workload: &Workload,
    microbatch: Microbatch,
    work: &mut [f64],
) -> Vec<(Item, usize)> {
    let items = workload.items(ModuleKind::Encoder, microbatch);
    let items = largest_first(items, |item| part(workload, Module::ENCODER, item));
    let mut held = vec![0.0f64; work.len()];
    let place = |(part, item): (f64, Item)| {
        let less = |a: &usize, b: &usize| held[*a].total_cmp(&held[*b]).then(work[*a].total_cmp(&work[*b]));
        let rank = (0..held.len()).min_by(less).unwrap_or(0);
        held[rank] += part;
        work[rank] += part * workload.slowdown(Rank(rank));
        (item, rank)
    };
    items.into_iter().map(place).collect()
}

fn part(workload: &Workload, module: Module, item: Item) -> f64 {
    share(workload, Unit::item(module, item))
}
