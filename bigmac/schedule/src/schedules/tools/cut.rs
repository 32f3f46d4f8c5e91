//! How the layers of encoder, LLM and generator are cut into the parts of a chain.

use crate::step::{
    Chain, ChainPart, ChunkCost, Layers, Load, MicrobatchSizes, ModuleKind, PerModule, Phase, Rank, Workload,
    even_ranges,
};
use std::ops::Range;

/// Time of all of a module's work in the step: forwards and whatever backwards there are.
pub(crate) fn module_times(workload: &Workload) -> PerModule<f64> {
    let mut times = PerModule::default();
    workload.units().for_each(|unit| times[unit.module.kind()] += workload.whole_cost(unit));
    times
}

/// Of each module's time, that of backwards which run after its last layer, whatever the cut: those of a projector that
/// learns alone.
fn backward_at_end(workload: &Workload) -> PerModule<f64> {
    let mut times = PerModule::default();
    if workload.projector_alone() {
        let encoder = workload.units().filter(|unit| unit.module.kind() == ModuleKind::Encoder);
        times.encoder =
            encoder.map(|unit| workload.whole_cost(unit) - workload.unit_cost(unit, Phase::Forward)).sum();
    }
    times
}

/// Parts of equal share on consecutive ranks from `first`; of whole layers where their number is known.
pub(crate) fn even_parts(first: usize, count: usize, layers: Option<usize>) -> Vec<ChainPart> {
    let ranges = layers.map(|layers| (layers, even_ranges(layers, count)));
    let part = |index: usize| {
        let cut = ranges.as_ref().map(|(layers, ranges)| (*layers, ranges[index].clone()));
        let share = cut
            .as_ref()
            .map_or(1.0 / count as f64, |(layers, range)| range.len() as f64 / (*layers).max(1) as f64);
        ChainPart { rank: Rank(first + index), share, layers: cut.map(|(_, range)| range) }
    };
    (0..count).map(part).collect()
}

/// All modules' layers as one row, cut where that makes the costliest of `ranks` parts cheapest: between layers where
/// their number is known, anywhere otherwise. A rank may hold layers of several modules.
pub(crate) fn balanced_chain(workload: &Workload) -> Chain {
    let times = module_times(workload);
    let ranks = workload.ranks();
    let mut chain = Chain { ranks, ..Chain::default() };
    let shares = match workload.layers() {
        Some(layers) => layer_shares(&layers, times, backward_at_end(workload), ranks),
        None => continuous_shares(times, ranks),
    };
    for (kind, part) in shares {
        chain.parts[kind].push(part);
    }
    // A module without work lives whole at its end of the chain.
    let ends = [(ModuleKind::Encoder, 0), (ModuleKind::Llm, ranks - 1), (ModuleKind::Generator, ranks - 1)];
    for (kind, rank) in ends {
        if chain.parts[kind].is_empty() {
            chain.parts[kind].push(whole(rank, workload.layers().map(|layers| layers.count[kind])));
        }
    }
    chain
}

/// All of a module on one rank.
pub(crate) fn whole(rank: usize, layers: Option<usize>) -> ChainPart {
    ChainPart { rank: Rank(rank), share: 1.0, layers: layers.map(|layers| 0..layers) }
}

type Share = (ModuleKind, ChainPart);

fn continuous_shares(times: PerModule<f64>, ranks: usize) -> Vec<Share> {
    let each = ModuleKind::ALL.iter().map(|kind| times[*kind]).sum::<f64>() / ranks as f64;
    let mut shares = Vec::new();
    let mut begin = 0.0;
    for kind in ModuleKind::ALL {
        let end = begin + times[kind];
        for rank in 0..ranks {
            let (from, to) = (each * rank as f64, each * (rank + 1) as f64);
            let share = (end.min(to) - f64::max(begin, from)) / times[kind];
            // Less than a billionth is rounding, not a part.
            if share > 1e-9 {
                shares.push((kind, ChainPart { rank: Rank(rank), share, layers: None }));
            }
        }
        begin = end;
    }
    shares
}

/// One layer in the row.
#[derive(Clone, Copy)]
struct Layer {
    kind: ModuleKind,
    index: usize,
    share: f64,
    time: f64,
}

fn layer_shares(layers: &Layers, times: PerModule<f64>, at_end: PerModule<f64>, ranks: usize) -> Vec<Share> {
    let mut row = Vec::new();
    for kind in ModuleKind::ALL {
        let (count, head) = (layers.count[kind], if kind == ModuleKind::Llm { layers.head } else { 0.0 });
        if times[kind] <= 0.0 {
            continue;
        }
        for index in 0..count {
            let weight = if index + 1 == count { 1.0 + head } else { 1.0 };
            let share = weight / (count as f64 + head);
            let after = if index + 1 == count { at_end[kind] } else { 0.0 };
            row.push(Layer { kind, index, share, time: share * (times[kind] - at_end[kind]) + after });
        }
    }
    let mut shares: Vec<Share> = Vec::new();
    for (rank, part) in lightest_cut(&row, ranks).into_iter().enumerate() {
        for layer in &row[part] {
            match shares.last_mut() {
                Some((kind, ChainPart { rank: at, share, layers: Some(range) }))
                    if *kind == layer.kind && at.0 == rank =>
                {
                    *share += layer.share;
                    range.end = layer.index + 1;
                }
                _ => {
                    let layers = Some(layer.index..layer.index + 1);
                    shares.push((layer.kind, ChainPart { rank: Rank(rank), share: layer.share, layers }));
                }
            }
        }
    }
    shares
}

/// Cuts the row into `parts` consecutive parts so that the costliest is cheapest (dynamic programming over prefixes).
fn lightest_cut(row: &[Layer], parts: usize) -> Vec<Range<usize>> {
    let mut sums = vec![0.0];
    sums.extend(row.iter().scan(0.0, |sum, layer| {
        *sum += layer.time;
        Some(*sum)
    }));
    let length = row.len();
    // best[k][i]: the costliest of k parts of the first i layers, and where the last of them begins.
    let mut best = vec![vec![(f64::INFINITY, 0usize); length + 1]; parts + 1];
    best[0][0] = (0.0, 0);
    for part in 1..=parts {
        for end in 0..=length {
            let with = |begin: usize| (best[part - 1][begin].0.max(sums[end] - sums[begin]), begin);
            let lightest = (0..=end).map(with).min_by(|a, b| a.0.total_cmp(&b.0));
            best[part][end] = lightest.unwrap_or((f64::INFINITY, 0));
        }
    }
    let mut ranges = Vec::with_capacity(parts);
    let mut end = length;
    for part in (1..=parts).rev() {
        let begin = best[part][end].1;
        ranges.push(begin..end);
        end = begin;
    }
    ranges.reverse();
    ranges
}

impl Workload {
    /// The same with its modules on a chain that was cut before, such as for other steps of the same run. Costs and
    /// sizes of encoder, LLM and generator as a whole are those of this workload.
    pub fn with_chain(&self, chain: Chain) -> Workload {
        let loads = loads_by_share(self, &chain.parts.llm);
        let sizes = sizes_by_share(&self.sizes, &chain.parts.llm);
        self.clone().on_chain(chain, loads, sizes)
    }
}

/// The loads with the LLM's cost cut into parts by share.
fn loads_by_share(workload: &Workload, parts: &[ChainPart]) -> Vec<Load> {
    let cut = |load: &Load| {
        let sum = |of: fn(&ChunkCost) -> f64| load.llm.iter().map(of).sum::<f64>();
        let all = ChunkCost {
            forward: sum(|c| c.forward),
            backward_input: sum(|c| c.backward_input),
            backward_weight: sum(|c| c.backward_weight),
            backward: sum(|c| c.backward),
        };
        let llm = parts.iter().map(|part| all.scaled(part.share));
        Load { llm: llm.collect(), ..load.clone() }
    };
    workload.loads().iter().map(cut).collect()
}

/// The sizes with what the LLM saves cut into parts by share.
fn sizes_by_share(sizes: &[MicrobatchSizes], parts: &[ChainPart]) -> Vec<MicrobatchSizes> {
    let cut = |sizes: &MicrobatchSizes| {
        let all = sizes.llm.iter().sum::<u64>() as f64;
        let llm = parts.iter().map(|part| (all * part.share).round() as u64);
        MicrobatchSizes { llm: llm.collect(), ..sizes.clone() }
    };
    sizes.iter().map(cut).collect()
}
