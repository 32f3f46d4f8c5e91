//! Phased: encoder, LLM and generator one after the other, each on all ranks, as if memory were unlimited.

use crate::api::{Options, Schedule, ScheduleError};
use crate::clock::slots;
use crate::step::{Item, Module, ModuleKind, Op, Phase, Table, Workload};

/// All encoder forwards shared over the ranks, the LLM, all encoder backwards; where anything is drawn, all LLM
/// forwards, the generator's items (each forward followed by its backward), and then the LLM backwards. No rank waits
/// for an item, but every microbatch's encoder activations live through the LLM's run: N / p microbatches per rank.
pub(crate) const PHASED: Schedule = Schedule {
    name: "phased",
    summary: "all encoder forwards, the LLM, all encoder backwards: fast, memory grows with the batch",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let encoder = slots(workload, Module::ENCODER, workload.len());
    let ranks = body(workload, options)?.ranks.into_iter().enumerate().map(|(rank, ops)| {
        let shares = encoder.iter().map(|slot| slot.shares[rank].clone());
        let forwards = shares.flat_map(by_microbatch).map(|items| Op::encoder(Phase::Forward, items));
        let shares = encoder.iter().map(|slot| slot.backward_share(workload, ModuleKind::Encoder, rank));
        let backwards = shares.flat_map(by_microbatch).map(|items| Op::encoder(Phase::Backward, items));
        forwards.chain(ops).chain(backwards).collect()
    });
    Ok(Table { ranks: ranks.collect() }.with_step())
}

/// LLM and generator: the LLM as it is, or, where anything is drawn, all its forwards, the drawings, its backwards.
pub(crate) fn body(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    let llm = options.llm_table(&workload.llm_only(), 0)?;
    let generator = slots(workload, Module::GENERATOR, workload.len());
    if generator.is_empty() {
        return Ok(llm);
    }
    // Drawings come between all forwards and all backwards, so that none of those overlap.
    let ranks = llm.without_overlaps().ranks.into_iter().enumerate().map(|(rank, ops)| {
        let is_forward = |op: &Op| matches!(op, Op::Compute { phase: Phase::Forward, .. });
        let (mut all, backwards): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(is_forward);
        all.extend(generator.iter().flat_map(|slot| slot.drawings(workload, rank)));
        all.extend(backwards);
        all
    });
    Ok(Table { ranks: ranks.collect() })
}

/// A rank's items, an op's worth per microbatch.
pub(crate) fn by_microbatch(items: Vec<Item>) -> Vec<Vec<Item>> {
    items.chunk_by(|a, b| a.microbatch == b.microbatch).map(<[Item]>::to_vec).collect()
}
