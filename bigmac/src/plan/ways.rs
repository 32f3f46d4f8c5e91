//! Ways to save memory that cost time.

use super::model::Model;
use bigmac_schedule::{ModuleKind, PerModule};

/// What can be recomputed and what sharded, every combination; the one with everything is the last.
pub(super) fn ways_to_save(model: &Model, devices: usize) -> Vec<(PerModule<bool>, PerModule<bool>)> {
    let there = |kind: ModuleKind| match kind {
        ModuleKind::Encoder => model.images.most() > 0,
        ModuleKind::Llm => model.llm.is_some(),
        ModuleKind::Generator => model.drawings.most() > 0,
    };
    let [encoder, llm, generator] = ModuleKind::ALL.map(there);
    let recompute = subsets([encoder, llm, generator]);
    let sharded = subsets([encoder && devices > 1, false, generator && devices > 1]);
    recompute.iter().flat_map(|r| sharded.iter().map(|s| (*r, *s))).collect()
}

/// All sets of the modules that may be in one.
fn subsets(may: [bool; 3]) -> Vec<PerModule<bool>> {
    let all = (0..8usize).map(|bits| PerModule {
        encoder: bits & 1 != 0,
        llm: bits & 2 != 0,
        generator: bits & 4 != 0,
    });
    let fits =
        |set: &PerModule<bool>| ModuleKind::ALL.into_iter().zip(may).all(|(kind, may)| may || !set[kind]);
    all.filter(fits).collect()
}
