//! What ranks may hold, and what a step needs at least.

use crate::api::ScheduleError;
use crate::check::{Budget, Limits, Measures};
use crate::clock::largest_first;
use crate::step::{
    Chunk, ChunkPlacement, Item, Microbatch, Module, ModuleKind, PerModule, Rank, Unit, Workload,
};

/// Encoder activations of a rank, in microbatches, where no budget is given.
const ENCODER: f64 = 4.0;

/// What each rank may hold, counted as `measures` say.
#[derive(Clone, Debug)]
pub(crate) struct Room<'a> {
    pub measures: Measures<'a>,
    /// LLM activations, by rank.
    pub llm: Vec<u64>,
    /// Encoder activations of any rank.
    pub encoder: u64,
    /// Generator activations of any rank; plans hold one item at a time.
    pub generator: u64,
}

impl<'a> Room<'a> {
    /// The room that budgets leave.
    ///
    /// # Errors
    /// Where a budget is below what any order needs, or is in bytes and what units save is not known.
    pub(crate) fn new(
        workload: &'a Workload,
        limits: &Limits,
        schedule: &'static str,
    ) -> Result<Room<'a>, ScheduleError> {
        let measures = Measures::new(workload, limits)?;
        let mut given = PerModule::<Option<u64>>::default();
        for module in ModuleKind::ALL {
            let Some(asked) = limits.budget[module] else { continue };
            let (room, least) = (measures.room(module, asked), minimum(workload, &measures, module));
            if room < least {
                let minimum = measures.budget(module, least);
                return Err(ScheduleError::Budget { schedule, module, asked, minimum });
            }
            given[module] = Some(room);
        }
        let usual = |module, microbatches| measures.room(module, Budget::Microbatches(microbatches));
        let llm = |rank| given.llm.unwrap_or_else(|| usual(ModuleKind::Llm, usual_llm(workload, rank)));
        let encoder =
            || usual(ModuleKind::Encoder, ENCODER).max(minimum(workload, &measures, ModuleKind::Encoder));
        Ok(Room {
            llm: (0..workload.ranks()).map(llm).collect(),
            encoder: given.encoder.unwrap_or_else(encoder),
            generator: given.generator.unwrap_or_else(|| usual(ModuleKind::Generator, 1.0)),
            measures,
        })
    }
}

/// What 1F1B (interleaved 1F1B, where ranks hold several chunks; ZB-V, where those are placed as a V) keeps on a rank,
/// and one microbatch more, whose weight gradients wait.
fn usual_llm(workload: &Workload, rank: usize) -> f64 {
    let (p, v) = (workload.ranks(), workload.chunks_per_rank());
    if v == 1 {
        return (p - rank + 1) as f64;
    }
    if workload.placement() == ChunkPlacement::V {
        return (p + 1) as f64;
    }
    (2 * (p - 1 - rank) + (v - 1) * p + 1) as f64 / v as f64 + 1.0
}

/// The least that one rank holds at some time. All items of a microbatch are live when the LLM reads them, all chunks of
/// the LLM when its backward begins; drawings come one at a time.
fn minimum(workload: &Workload, measures: &Measures<'_>, module: ModuleKind) -> u64 {
    let learning = workload.microbatches().filter(|microbatch| workload.has_backward(module, *microbatch));
    let least = learning.map(|microbatch| match module {
        ModuleKind::Generator => {
            let items = workload.items(module, microbatch);
            items.map(|item| measures.count(Unit::item(Module::GENERATOR, item))).max().unwrap_or_default()
        }
        ModuleKind::Llm => {
            let mut held = vec![0u64; workload.ranks()];
            for chunk in (0..workload.chunks()).map(Chunk) {
                let rank = workload.rank_of(chunk).0;
                held[rank] = held[rank].saturating_add(measures.count(Unit::llm(chunk, microbatch)));
            }
            held.into_iter().max().unwrap_or_default()
        }
        ModuleKind::Encoder => {
            let shares = even_shares(workload, measures, microbatch, &mut vec![0.0; workload.ranks()]);
            let mut held = vec![0u64; workload.ranks()];
            for (item, rank) in shares {
                held[rank] = held[rank].saturating_add(measures.count(Unit::item(Module::ENCODER, item)));
            }
            held.into_iter().max().unwrap_or_default()
        }
    });
    least.max().unwrap_or_default()
}

/// Encoder items of a microbatch shared over the ranks so that the one that holds most holds little: largest first,
/// each to the rank that holds least; among equals to the one that has least `work` so far, which is added to.
pub(super) fn even_shares(
    workload: &Workload,
    measures: &Measures<'_>,
    microbatch: Microbatch,
    work: &mut [f64],
) -> Vec<(Item, usize)> {
    let items = workload.items(ModuleKind::Encoder, microbatch);
    let items = largest_first(items, |item| measures.count(Unit::item(Module::ENCODER, item)) as f64);
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
