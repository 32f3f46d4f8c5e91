//! Disaggregated (DistTrain, arXiv 2408.04275; Megatron's MIMO models): encoder, LLM and generator on ranks of their
//! own.

use crate::api::{Options, Schedule, ScheduleError};
use crate::schedules::tools::chain::parts_table;
use crate::schedules::tools::cut::{even_parts, module_times, whole};
use crate::step::{Chain, ChainPart, ModuleKind, PerModule, Table, Workload};

/// One chain of `p_e + p + p_g` stages: the LLM keeps its `p`, and encoder and generator get ranks of their own, as
/// many as make the rank-seconds of the step least. It uses more ranks than the others, so its time alone says little.
pub(crate) const DISAGGREGATED: Schedule = Schedule {
    name: "disaggregated",
    summary: "DistTrain: encoder and generator on more ranks, of their own, in one chain with the LLM's",
    is_whole: true,
    workload: chain,
    chain_within: Some(chain_within),
    build,
};

fn chain(workload: &Workload) -> Workload {
    if workload.chunks_per_rank() != 1 || workload.chain().is_some() {
        return workload.clone();
    }
    let (encoder, generator) = cheapest_ranks(workload);
    let chain = chain_of(workload, [encoder, workload.ranks(), generator]);
    let (loads, sizes) = (workload.loads().to_vec(), workload.sizes.clone());
    let mut moved = workload.clone();
    // The LLM's ranks keep their speed; others run at full speed.
    moved.slowdown.splice(0..0, std::iter::repeat_n(1.0, encoder));
    moved.on_chain(chain, loads, sizes)
}

/// The chain of the least time on exactly `ranks` ranks; none where they are too few for a rank each.
fn chain_within(workload: &Workload, ranks: usize) -> Option<Chain> {
    let times = module_times(workload);
    let layers = |kind| workload.layers().map_or(usize::MAX, |layers| layers.count[kind]);
    let counts = |kind| match times[kind] > 0.0 {
        true => 1..=ranks.min(layers(kind)),
        false => 0..=0,
    };
    let mut best: Option<(f64, [usize; 3])> = None;
    for encoder in counts(ModuleKind::Encoder) {
        for generator in counts(ModuleKind::Generator) {
            let llm = ranks.saturating_sub(encoder + generator);
            if llm == 0 || llm > layers(ModuleKind::Llm) {
                continue;
            }
            let stages = [encoder, llm, generator];
            let time = chain_time(times, stages, workload.len());
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, stages));
            }
        }
    }
    best.map(|(_, stages)| chain_of(workload, stages))
}

/// Encoder, LLM and generator on so many ranks each, one after the other.
fn chain_of(workload: &Workload, [encoder, p, generator]: [usize; 3]) -> Chain {
    let layers = |kind| workload.layers().map(|layers| layers.count[kind]);
    // A module without work lives on the end of the LLM's ranks.
    let parts = PerModule {
        encoder: parts(0, encoder, encoder, layers(ModuleKind::Encoder)),
        llm: even_parts(encoder, p, layers(ModuleKind::Llm)),
        generator: parts(encoder + p, generator, encoder + p - 1, layers(ModuleKind::Generator)),
    };
    Chain { ranks: encoder + p + generator, parts }
}

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    parts_table(&DISAGGREGATED, workload, options)
}

fn parts(first: usize, count: usize, spare: usize, layers: Option<usize>) -> Vec<ChainPart> {
    match count {
        0 => vec![whole(spare, layers)],
        _ => even_parts(first, count, layers),
    }
}

/// Time of a chain of so many stages in which every microbatch is an average one: sum over stages + (N - 1) x slowest
/// stage.
fn chain_time(times: PerModule<f64>, stages: [usize; 3], microbatches: usize) -> f64 {
    let n = microbatches as f64;
    let of = ModuleKind::ALL.into_iter().zip(stages).filter(|(_, ranks)| *ranks > 0);
    let slowest = of.map(|(kind, ranks)| times[kind] / n / ranks as f64).fold(0.0, f64::max);
    ModuleKind::ALL.into_iter().map(|kind| times[kind]).sum::<f64>() / n + (n - 1.0) * slowest
}

/// How many ranks encoder and generator get: those with the fewest rank-seconds.
fn cheapest_ranks(workload: &Workload) -> (usize, usize) {
    let times = module_times(workload);
    let PerModule { encoder, llm, generator } = times;
    let p = workload.ranks();
    let most = |time: f64, layers: Option<usize>| {
        // More ranks than stages as heavy as the LLM's would only idle.
        let useful = if llm > 0.0 { (p as f64 * time / llm).ceil() } else { p as f64 };
        (useful.clamp(1.0, 4.0 * p as f64) as usize).min(layers.unwrap_or(usize::MAX)).max(1)
    };
    let counts = |time: f64, layers| {
        if time > 0.0 { 1..=most(time, layers) } else { 0..=0 }
    };
    let layers = workload.layers();
    let mut best = (f64::INFINITY, (0, 0));
    for e in counts(encoder, layers.map(|layers| layers.count.encoder)) {
        for g in counts(generator, layers.map(|layers| layers.count.generator)) {
            let rank_seconds = chain_time(times, [e, p, g], workload.len()) * (e + p + g) as f64;
            if rank_seconds < best.0 * (1.0 - 1e-12) {
                best = (rank_seconds, (e, g));
            }
        }
    }
    best.1
}
