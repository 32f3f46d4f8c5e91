//! What a rank's memory is taken by.

use super::device::Device;
use super::layout::{Estimate, Layout};
use super::model::Bytes;
use bigmac_schedule::Simulation;
use bigmac_schedule::memory::peak_bytes_together;
use bigmac_schedule::{Chunk, Module, ModuleKind, Op, Table, Workload};
use std::collections::BTreeSet;

/// Bytes of one rank by kind. Peaks of different kinds may lie at different moments: the total is an upper bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankMemory {
    /// Weights as they are computed with.
    pub weights: u64,
    /// Accumulated gradients of what learns.
    pub gradients: u64,
    /// Optimizer states of what learns, this device's share of them.
    pub optimizer: u64,
    /// The most that activations of all modules together hold at once.
    pub activations: u64,
    /// The most that received values hold at once between their arrival and their use.
    pub messages: u64,
    /// What a layer's backward takes beside what is saved.
    pub working: u64,
}

impl RankMemory {
    /// All kinds with their names.
    pub fn kinds(&self) -> [(&'static str, u64); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("messages", self.messages),
            ("working", self.working),
        ]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.kinds().iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Adds what a rank holds of parameters, each of these `bytes`, whose weights and gradients are `split` over so
    /// many devices. Optimizer states are split over all devices that hold the same parameters (ZeRO stage 1, arXiv
    /// 1910.02054).
    pub(super) fn hold(&mut self, holding: &Holding, bytes: &Bytes, split: u64) {
        self.weights += holding.parameters * bytes.value as u64 / split;
        self.gradients += holding.trained * bytes.gradient as u64 / split;
        self.optimizer += holding.trained * bytes.optimizer as u64 / holding.devices;
    }
}

/// Parameters that a rank holds, and how many devices hold the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Of which module.
    pub kind: ModuleKind,
    /// How many.
    pub parameters: u64,
    /// Those of them that learn.
    pub trained: u64,
    /// Devices of all pipelines together that hold them, this one included.
    pub devices: u64,
}

impl Holding {
    /// Over how many devices its weights and gradients are split: those of one node that hold it, where it is sharded.
    pub fn split(&self, device: &Device, layout: &Layout) -> u64 {
        let node = device.devices_per_node as u64;
        if layout.sharded[self.kind] { self.devices.min(node) } else { 1 }
    }
}

/// The LLM's chunks on their ranks, which every schedule has that leaves them there.
pub(super) fn llm_holdings(estimate: &Estimate<'_>, workload: &Workload) -> Vec<Vec<Holding>> {
    let module = |chunk| Module::Llm(chunk);
    let mut ranks = vec![Vec::new(); workload.ranks()];
    for chunk in (0..workload.chunks()).map(Chunk) {
        ranks[workload.rank_of(chunk).0].push(Holding {
            kind: ModuleKind::Llm,
            parameters: estimate.parameters(workload, module(chunk)),
            trained: estimate.trained(workload, module(chunk)),
            devices: estimate.layout.replicas as u64,
        });
    }
    ranks
}

/// What every rank that runs `table` holds: the chunks of modules that live there alone, and whatever else it runs.
pub fn holdings(estimate: &Estimate<'_>, workload: &Workload, table: &Table) -> Vec<Vec<Holding>> {
    let run =
        |ops: &[Op]| ops.iter().flat_map(Op::units).map(|unit| unit.module).collect::<BTreeSet<Module>>();
    let chunks = (0..workload.chunks()).map(|chunk| Module::Llm(Chunk(chunk)));
    let mut modules: Vec<BTreeSet<Module>> = table.ranks.iter().map(|ops| run(ops)).collect();
    for chunk in chunks {
        // A chunk lives on its rank even if a step has nothing for it to do.
        if let Some(here) = workload.home(chunk).and_then(|rank| modules.get_mut(rank.0)) {
            here.insert(chunk);
        }
    }
    let holders = |module: &Module| modules.iter().filter(|rank| rank.contains(module)).count();
    let holding = |module: &Module| Holding {
        kind: module.kind(),
        parameters: estimate.parameters(workload, *module),
        trained: estimate.trained(workload, *module),
        devices: (holders(module) * estimate.layout.replicas) as u64,
    };
    modules.iter().map(|rank| rank.iter().map(holding).collect()).collect()
}

/// The memory of every rank that runs `table`.
pub fn rank_memory(
    estimate: &Estimate<'_>,
    workload: &Workload,
    table: &Table,
    simulation: &Simulation,
    holdings: &[Vec<Holding>],
) -> Vec<RankMemory> {
    let activations = peak_bytes_together(table, workload, |unit| workload.saved(unit).unwrap_or_default());
    let messages = peak_messages(workload, table, simulation);
    let ranks = holdings.iter().zip(activations).zip(messages);
    ranks
        .map(|((holdings, activations), messages)| {
            let mut memory = RankMemory { activations, messages, ..RankMemory::default() };
            for holding in holdings {
                let split = holding.split(estimate.device, &estimate.layout);
                memory.hold(holding, &estimate.model.bytes, split);
                memory.working = memory.working.max(estimate.working(holding.kind));
            }
            memory
        })
        .collect()
}

/// Per rank, the most bytes of values that have come from other ranks and wait for the op that reads them.
fn peak_messages(workload: &Workload, table: &Table, simulation: &Simulation) -> Vec<u64> {
    let mut made = vec![None; workload.value_count()];
    for (rank, (ops, spans)) in table.ranks.iter().zip(&simulation.spans).enumerate() {
        for (op, span) in ops.iter().zip(spans) {
            op.for_each_produced(workload, |value| {
                if let Some(index) = workload.value_index(value) {
                    made[index] = Some((rank, span.end));
                }
            });
        }
    }
    let ranks = table.ranks.iter().zip(&simulation.spans).enumerate();
    ranks
        .map(|(rank, (ops, spans))| {
            let mut changes: Vec<(f64, i128)> = Vec::new();
            for (op, span) in ops.iter().zip(spans) {
                op.for_each_consumed(workload, |value| {
                    let made = workload.value_index(value).and_then(|index| made[index]);
                    if let Some((_, time)) = made.filter(|(producer, _)| *producer != rank) {
                        let bytes: i128 = workload.value_bytes(value).unwrap_or_default().into();
                        changes.extend([(time, bytes), (span.end, -bytes)]);
                    }
                });
            }
            // Of changes at one moment, arrivals count first.
            changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
            let live = changes.iter().scan(0, |live, (_, bytes)| {
                *live += bytes;
                Some(*live)
            });
            live.max().map_or(0, |peak| u64::try_from(peak.max(0)).unwrap_or(u64::MAX))
        })
        .collect()
}
