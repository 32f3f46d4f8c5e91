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
    build,
};

fn chain(workload: &Workload) -> Workload {
    if workload.chunks_per_rank() != 1 || workload.chain().is_some() {
        return workload.clone();
    }
    let (encoder, generator) = cheapest_ranks(workload);
    let layers = |kind| workload.layers().map(|layers| layers.count[kind]);
    let p = workload.ranks();
    // A module without work lives on the end of the LLM's ranks.
    let parts = PerModule {
        encoder: parts(0, encoder, encoder, layers(ModuleKind::Encoder)),
        llm: even_parts(encoder, p, layers(ModuleKind::Llm)),
        generator: parts(encoder + p, generator, encoder + p - 1, layers(ModuleKind::Generator)),
    };
    let chain = Chain { ranks: encoder + p + generator, parts };
    let (loads, sizes) = (workload.loads().to_vec(), workload.sizes.clone());
    let mut moved = workload.clone();
    // The LLM's ranks keep their speed; others run at full speed.
    moved.slowdown.splice(0..0, std::iter::repeat_n(1.0, encoder));
    moved.on_chain(chain, loads, sizes)
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

/// How many ranks encoder and generator get: those with the fewest rank-seconds, of a chain in which every microbatch
/// is an average one, (sum over stages + (N - 1) x slowest stage) x ranks.
fn cheapest_ranks(workload: &Workload) -> (usize, usize) {
    let PerModule { encoder, llm, generator } = module_times(workload);
    let (n, p) = (workload.len() as f64, workload.ranks());
    let stage = |time: f64, ranks: usize| if ranks == 0 { 0.0 } else { time / n / ranks as f64 };
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
            let slowest = stage(encoder, e).max(stage(llm, p)).max(stage(generator, g));
            let time = (encoder + llm + generator) / n + (n - 1.0) * slowest;
            let rank_seconds = time * (e + p + g) as f64;
            if rank_seconds < best.0 * (1.0 - 1e-12) {
                best = (rank_seconds, (e, g));
            }
        }
    }
    best.1
}
