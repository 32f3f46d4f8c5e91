//! Steps as one chain of stages: the LLM's order, with a stage's encoder and generator work inside its ops.

use crate::api::{Options, Schedule, ScheduleError};
use crate::step::{
    Chunk, ChunkCost, Item, Load, Microbatch, Module, ModuleKind, Op, PerModule, Phase, Piece, Rank, Table,
    Unit, Work, Workload,
};

/// What one stage of the chain runs, besides waiting: chunks of the three modules, in the order of the data.
pub(crate) type Stage = PerModule<Option<Chunk>>;

/// The whole step over `stages`, `stages.len() / ranks` to a rank: ordered as the LLM schedule orders chunks, each of
/// its ops replaced by what its stage has to do. A forward runs encoder, LLM, generator; a backward the other way
/// round. Encoder and generator do the whole of their backward where a split one has its input gradients.
pub(crate) fn stages_table(
    workload: &Workload,
    options: &Options,
    stages: &[Stage],
) -> Result<Table, ScheduleError> {
    let order = options.llm_table(&stage_order(workload, stages)?, 0)?;
    let ranks = order.ranks.into_iter().map(|ops| {
        let runs = ops.into_iter().flat_map(|op| match op {
            Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) } => {
                let stage = stages.get(chunk.0).copied().unwrap_or_default();
                stage_ops(workload, stage, phase, microbatch)
            }
            Op::Overlap { forward, backward, phase } => {
                let stage_of = |unit: Unit| stages.get(unit.module.chunk().0).copied().unwrap_or_default();
                let [forward, backward] = [(forward, Phase::Forward), (backward, phase)]
                    .map(|(unit, phase)| stage_ops(workload, stage_of(unit), phase, unit.microbatch()));
                at_once(forward, backward)
            }
            other => vec![other],
        });
        runs.collect()
    });
    Ok(Table { ranks: ranks.collect() }.with_step())
}

/// The table of a workload whose modules are one chain of parts, all that a rank holds being a stage.
pub(crate) fn parts_table(
    schedule: &Schedule,
    workload: &Workload,
    options: &Options,
) -> Result<Table, ScheduleError> {
    let chunks = workload.chunks_per_rank();
    if chunks != 1 {
        return Err(ScheduleError::Chunks { schedule: schedule.name, wanted: 1, chunks });
    }
    let chain = workload.chain().ok_or(ScheduleError::NoChain)?;
    let stage = |rank| {
        PerModule::from_fn(|kind| {
            chain.parts[kind].iter().position(|part| part.rank == Rank(rank)).map(Chunk)
        })
    };
    let stages: Vec<Stage> = (0..chain.ranks).map(stage).collect();
    stages_table(workload, options, &stages)
}

/// An LLM that has a chunk where the chain has a stage, for its order to be taken. All of it learns, since a stage has
/// a backward where any of its modules does; what a stage does not have is left out when its ops are written.
fn stage_order(workload: &Workload, stages: &[Stage]) -> Result<Workload, ScheduleError> {
    let time = |module: Option<Module>, m: Microbatch, phase| {
        let ops = module.into_iter().flat_map(|module| op(workload, module, phase, m));
        ops.map(|op| workload.cost(&op, Rank(0))).sum::<f64>()
    };
    let loads = workload.microbatches().map(|m| {
        let llm = stages.iter().map(|stage| {
            let modules = modules(*stage);
            let all = |phase| modules.iter().map(|module| time(*module, m, phase)).sum::<f64>();
            let llm = |phase| time(stage.llm.map(Module::Llm), m, phase);
            let items = modules.iter().filter(|module| **module != stage.llm.map(Module::Llm));
            let items: f64 = items.map(|module| time(*module, m, Phase::Backward)).sum();
            ChunkCost {
                forward: all(Phase::Forward),
                backward_input: items + llm(Phase::BackwardInput),
                backward_weight: llm(Phase::BackwardWeight),
                backward: all(Phase::Backward),
            }
        });
        Load { encoder: Vec::new(), generator: Vec::new(), llm: llm.collect() }
    });
    let (ranks, each) = (workload.ranks(), stages.len() / workload.ranks());
    let link = workload.link();
    let order = Workload::new(ranks, each, loads.collect(), PerModule::all(true), link.latency)?;
    Ok(order.with_placement(workload.placement()))
}

fn modules(stage: Stage) -> [Option<Module>; 3] {
    ModuleKind::ALL.map(|kind| stage[kind].map(|chunk| kind.module(chunk)))
}

fn stage_ops(workload: &Workload, stage: Stage, phase: Phase, microbatch: Microbatch) -> Vec<Op> {
    let part = |module: Module| match (module, phase) {
        (Module::Llm(_), _) | (_, Phase::Forward | Phase::Backward) => Some(phase),
        (_, Phase::BackwardInput) => Some(Phase::Backward),
        (_, Phase::BackwardWeight | Phase::Recompute) => None,
    };
    let modules = modules(stage).into_iter().flatten();
    let mut ops: Vec<Op> =
        modules.filter_map(|module| op(workload, module, part(module)?, microbatch)).collect();
    if phase != Phase::Forward {
        ops.reverse();
    }
    ops
}

/// What two stages have to do at once, where each has work of the LLM alone; otherwise one after the other.
fn at_once(forward: Vec<Op>, backward: Vec<Op>) -> Vec<Op> {
    let llm = |ops: &[Op]| match ops {
        [Op::Compute { module, phase, work: Work::Microbatch(microbatch) }] => {
            Some((Unit { module: *module, piece: Piece::Microbatch(*microbatch) }, *phase))
        }
        _ => None,
    };
    match (llm(&forward), llm(&backward)) {
        (Some((forward, _)), Some((backward, phase))) => vec![Op::Overlap { forward, backward, phase }],
        _ => forward.into_iter().chain(backward).collect(),
    }
}

/// A module's op on all of a microbatch; `None` where there is nothing to do.
fn op(workload: &Workload, module: Module, phase: Phase, microbatch: Microbatch) -> Option<Op> {
    let kind = module.kind();
    let learns = phase != Phase::BackwardWeight || workload.has_weight_gradient(kind);
    if !learns || (phase != Phase::Forward && !workload.goes_backward(module, microbatch)) {
        return None;
    }
    if kind == ModuleKind::Llm {
        return Some(Op::llm(module.chunk(), phase, microbatch));
    }
    let items: Vec<Item> = workload.items(kind, microbatch).collect();
    (!items.is_empty()).then_some(Op::Compute { module, phase, work: Work::Items(items) })
}
