//! The shape of a step: how many ranks, chunks and microbatches, which items each microbatch holds, what everything
//! costs, and what learns. Schedules are built from it, and everything said about a schedule is relative to it.

use crate::step::costs::{
    ChunkCost, ItemCost, Load, UniformCosts, WorkloadError, check_extent, check_load, check_time,
};
use crate::step::per_module::PerModule;
use crate::step::placement::{Chain, ChunkPlacement, Layers};
use crate::step::sizes::{Link, MicrobatchSizes};
use crate::step::table::{Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Unit};

/// The shape of a step. Consistent by construction: see [`Workload::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    ranks: usize,
    chunks_per_rank: usize,
    /// Where the LLM's chunks live, unless there is a chain.
    pub(crate) placement: ChunkPlacement,
    pub(crate) loads: Vec<Load>,
    learns: PerModule<bool>,
    /// Of the encoder, only what comes after its layers learns: the projector.
    projector_alone: bool,
    pub(crate) link: Link,
    /// One per microbatch, or none where they are not known.
    pub(crate) sizes: Vec<MicrobatchSizes>,
    pub(crate) layers: Option<Layers>,
    /// Where the modules' parts live, if every part has a rank of its own.
    pub(crate) chain: Option<Chain>,
    pub(crate) slowdown: Vec<f64>,
    /// Share of the shorter half of an overlap that the longer one hides.
    overlap: f64,
    /// How many items of encoder and generator there are before each microbatch, and in all.
    pub(crate) offsets: PerModule<Vec<usize>>,
    /// Per microbatch: whether the LLM or something below it learns.
    llm_backward: Vec<bool>,
}

impl Workload {
    /// A workload of `loads.len()` microbatches on `ranks` ranks that hold `chunks_per_rank` LLM chunks each; modules
    /// that do not learn have no weight gradients, and no backward at all where nothing below them learns; `p2p` is the
    /// time a value takes between two ranks.
    ///
    /// # Errors
    /// Where a number is zero or too large, a microbatch lacks a chunk's cost, or a number is not a time ([`is_time`](crate::is_time)).
    pub fn new(
        ranks: usize,
        chunks_per_rank: usize,
        loads: Vec<Load>,
        learns: PerModule<bool>,
        p2p: f64,
    ) -> Result<Workload, WorkloadError> {
        let units = loads.iter().map(|load| load.llm.len() + load.encoder.len() + load.generator.len()).sum();
        check_extent(ranks, chunks_per_rank, loads.len(), units)?;
        check_time(|| "the latency between ranks".to_owned(), p2p)?;
        for (m, load) in loads.iter().enumerate() {
            check_load(m, load, ranks, chunks_per_rank)?;
        }
        let mut workload = Workload {
            ranks,
            chunks_per_rank,
            placement: ChunkPlacement::default(),
            loads,
            learns,
            projector_alone: false,
            link: Link { latency: p2p, ..Link::default() },
            sizes: Vec::new(),
            layers: None,
            chain: None,
            slowdown: vec![1.0; ranks],
            overlap: 0.0,
            offsets: PerModule::default(),
            llm_backward: Vec::new(),
        };
        workload.count_items();
        workload.llm_backward = workload.llm_backwards();
        Ok(workload)
    }

    /// A workload like this one whose modules are one chain; `loads` and `sizes` have one LLM entry per part.
    pub(crate) fn on_chain(
        mut self,
        chain: Chain,
        loads: Vec<Load>,
        sizes: Vec<MicrobatchSizes>,
    ) -> Workload {
        self.ranks = chain.ranks;
        self.slowdown.resize(chain.ranks, 1.0);
        self.chunks_per_rank = 1;
        self.loads = loads;
        self.sizes = sizes;
        self.chain = Some(chain);
        self
    }

    fn count_items(&mut self) {
        for kind in [ModuleKind::Encoder, ModuleKind::Generator] {
            let mut sum = 0;
            let ends = self.loads.iter().map(|load| {
                sum += load.items(kind).len();
                sum
            });
            self.offsets[kind] = std::iter::once(0).chain(ends).collect();
        }
    }

    fn llm_backwards(&self) -> Vec<bool> {
        let below = |load: &Load| self.learns.encoder && !load.encoder.is_empty();
        self.loads.iter().map(|load| self.learns.llm || below(load)).collect()
    }

    /// `microbatches` equal microbatches whose encoder and generator work is `items` equal items each; a module
    /// whose forward and backward cost nothing has no items.
    ///
    /// # Errors
    /// Those of [`Workload::new`].
    pub fn uniform(
        ranks: usize,
        chunks_per_rank: usize,
        microbatches: usize,
        items: usize,
        costs: UniformCosts,
        p2p: f64,
    ) -> Result<Workload, WorkloadError> {
        let chunks = ranks.saturating_mul(chunks_per_rank);
        let units = chunks.saturating_add(items.saturating_mul(2)).saturating_mul(microbatches);
        check_extent(ranks, chunks_per_rank, microbatches, units)?;
        let split = |forward: f64, backward: f64| {
            let count = if forward == 0.0 && backward == 0.0 { 0 } else { items };
            vec![ItemCost { forward: forward / items as f64, backward: backward / items as f64 }; count]
        };
        let v = chunks_per_rank as f64;
        let parts = ChunkCost::of_parts(costs.forward, costs.backward_input, costs.backward_weight);
        let backward = costs.backward.unwrap_or(parts.backward);
        let chunk = ChunkCost { backward, ..parts }.scaled(1.0 / v);
        let load = Load {
            encoder: split(costs.encoder_forward, costs.encoder_backward),
            generator: split(costs.generator_forward, costs.generator_backward),
            llm: vec![chunk; chunks],
        };
        Workload::new(ranks, chunks_per_rank, vec![load; microbatches], PerModule::all(true), p2p)
    }

    /// The same with other modules learning.
    pub fn with_learns(mut self, learns: PerModule<bool>) -> Workload {
        self.learns = learns;
        self.llm_backward = self.llm_backwards();
        self
    }

    /// The same with an encoder whose layers are frozen and whose projector learns, where `alone` says so. An encoder
    /// item's backward is then the projector's, all of it on the last chunk; chunks before it have none.
    pub fn with_projector_alone(self, alone: bool) -> Workload {
        Workload { projector_alone: alone, ..self }
    }

    /// Whether a whole backward of the LLM is shorter than its parts anywhere.
    pub(crate) fn has_shorter_wholes(&self) -> bool {
        let mut chunks = self.loads.iter().flat_map(|load| &load.llm);
        let parts = |cost: &ChunkCost| (cost.backward_input + cost.backward_weight) * (1.0 - 1e-9);
        self.learns.llm && chunks.any(|cost| cost.backward < parts(cost))
    }

    /// The same where a whole backward of the LLM takes as long as its parts.
    pub(crate) fn in_parts(&self) -> Workload {
        let mut workload = self.clone();
        for cost in workload.loads.iter_mut().flat_map(|load| &mut load.llm) {
            cost.backward = cost.backward_input + cost.backward_weight;
        }
        workload
    }

    /// The LLM of this workload alone: the same LLM ops at the same costs, input gradients for a learning encoder
    /// included, without anything to encode or to draw.
    pub fn llm_only(&self) -> Workload {
        self.without(ModuleKind::Encoder).without(ModuleKind::Generator)
    }

    /// The same without the items of encoder or generator; a backward that only they need stays.
    pub(crate) fn without(&self, kind: ModuleKind) -> Workload {
        let mut workload = self.clone();
        let (loads, sizes) = (workload.loads.iter_mut(), workload.sizes.iter_mut());
        match kind {
            ModuleKind::Encoder => {
                loads.for_each(|load| load.encoder.clear());
                sizes.for_each(|sizes| sizes.encoder.clear());
            }
            ModuleKind::Generator => {
                loads.for_each(|load| load.generator.clear());
                sizes.for_each(|sizes| sizes.generator.clear());
            }
            ModuleKind::Llm => {}
        }
        workload.count_items();
        workload
    }

    /// The same on ranks of unequal speed: every op on rank `r` takes `slowdown[r]` times its cost.
    ///
    /// # Errors
    /// Where there is not one factor from 1e-9 to 1e9 per rank.
    pub fn with_slowdown(mut self, slowdown: Vec<f64>) -> Result<Workload, WorkloadError> {
        if slowdown.len() != self.ranks {
            let what = "slowdowns (one per rank)".to_owned();
            return Err(WorkloadError::Count { what, given: slowdown.len(), expected: self.ranks });
        }
        for (rank, factor) in slowdown.iter().enumerate() {
            if !(1e-9..=1e9).contains(factor) {
                let what = format!("the slowdown of rank {rank}");
                return Err(WorkloadError::Value {
                    what,
                    given: *factor,
                    expected: "a number from 1e-9 to 1e9",
                });
            }
        }
        self.slowdown = slowdown;
        Ok(self)
    }

    /// The same where ranks run a forward and a backward at once ([`Op::Overlap`]) in the time of the longer one and a
    /// part of the shorter: a share `overlap` of it is hidden, 0 for none of it and 1 for all.
    ///
    /// # Errors
    /// Where it is not from 0 to 1.
    pub fn with_overlap(mut self, overlap: f64) -> Result<Workload, WorkloadError> {
        if !(0.0..=1.0).contains(&overlap) {
            let what = "the share that overlapped passes hide".to_owned();
            return Err(WorkloadError::Value { what, given: overlap, expected: "a number from 0 to 1" });
        }
        self.overlap = overlap;
        Ok(self)
    }

    /// The share of the shorter half of an overlap that the longer one hides.
    pub fn overlap(&self) -> f64 {
        self.overlap
    }

    /// Ranks of the pipeline, p.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// LLM chunks on each rank, v.
    pub fn chunks_per_rank(&self) -> usize {
        self.chunks_per_rank
    }

    /// LLM chunks altogether: p v, or the LLM's parts in a chain.
    pub fn chunks(&self) -> usize {
        self.chunks_of(ModuleKind::Llm)
    }

    /// Number of microbatches, N.
    pub fn len(&self) -> usize {
        self.loads.len()
    }

    /// False: a workload has at least one microbatch.
    pub fn is_empty(&self) -> bool {
        self.loads.is_empty()
    }

    /// All microbatches in order.
    pub fn microbatches(&self) -> impl DoubleEndedIterator<Item = Microbatch> + ExactSizeIterator + use<> {
        (0..self.loads.len()).map(Microbatch)
    }

    /// The microbatches with their items and costs.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Which modules learn, in whole or in part. A frozen one has no weight gradients, and no backward at all where
    /// nothing below it learns.
    pub fn learns(&self) -> PerModule<bool> {
        self.learns
    }

    /// How many times slower than its costs a rank is.
    pub fn slowdown(&self, rank: Rank) -> f64 {
        self.slowdown.get(rank.0).copied().unwrap_or(1.0)
    }

    /// The last LLM chunk, which computes the loss.
    pub fn last_chunk(&self) -> Chunk {
        Chunk(self.chunks().saturating_sub(1))
    }

    /// The items of a microbatch's encoder (generator) work; none for the LLM or a microbatch that is not there.
    pub fn items(&self, kind: ModuleKind, microbatch: Microbatch) -> impl Iterator<Item = Item> + use<> {
        let count = self.loads.get(microbatch.0).map_or(0, |load| load.items(kind).len());
        (0..count).map(move |index| Item { microbatch, index })
    }

    /// Whether any microbatch has items of this kind.
    pub fn has_items(&self, kind: ModuleKind) -> bool {
        self.microbatches().any(|microbatch| self.items(kind, microbatch).next().is_some())
    }

    /// Whether of the encoder the projector learns and nothing before it.
    pub fn projector_alone(&self) -> bool {
        self.projector_alone
    }

    /// Whether a module has a backward on this microbatch: it learns, or something below it does. Of an encoder whose
    /// projector learns alone, that is its last chunk: see [`Workload::goes_backward`].
    pub fn has_backward(&self, kind: ModuleKind, microbatch: Microbatch) -> bool {
        let llm = self.llm_backward.get(microbatch.0).copied().unwrap_or(false);
        match kind {
            ModuleKind::Encoder => self.learns.encoder,
            ModuleKind::Llm => llm,
            ModuleKind::Generator => self.learns.generator || llm,
        }
    }

    /// Whether this chunk of a module has a backward on this microbatch.
    pub fn goes_backward(&self, module: Module, microbatch: Microbatch) -> bool {
        self.has_backward(module.kind(), microbatch)
            && (self.learns_throughout(module) || self.is_last(module))
    }

    /// False for the encoder where its last chunk alone has something that learns.
    fn learns_throughout(&self, module: Module) -> bool {
        !(self.projector_alone && module.kind() == ModuleKind::Encoder)
    }

    /// The share of a unit's backward, and of what its forward saves for it, that its chunk has.
    pub fn backward_share(&self, module: Module) -> f64 {
        if self.learns_throughout(module) {
            self.share_of(module)
        } else {
            f64::from(u8::from(self.is_last(module)))
        }
    }

    /// Whether a module of this kind computes weight gradients.
    pub fn has_weight_gradient(&self, kind: ModuleKind) -> bool {
        self.learns[kind]
    }

    /// Time that one unit takes in a phase, on a rank of full speed. 0 for a unit that the workload does not have.
    pub fn unit_cost(&self, unit: Unit, phase: Phase) -> f64 {
        let Some(load) = self.loads.get(unit.microbatch().0) else { return 0.0 };
        match (unit.module.kind(), unit.piece) {
            (ModuleKind::Llm, Piece::Microbatch(_)) => {
                load.llm.get(unit.module.chunk().0).map_or(0.0, |cost| cost.of(phase, self.learns.llm))
            }
            (kind, Piece::Item(item)) => {
                let cost = load.items(kind).get(item.index).map_or(0.0, |cost| cost.of(phase));
                let share = match phase {
                    Phase::Forward | Phase::Recompute => self.share_of(unit.module),
                    _ => self.backward_share(unit.module),
                };
                share * cost
            }
            _ => 0.0,
        }
    }

    /// Time of a unit's forward and, where it has one, its backward: whole or in parts, whichever is less.
    pub(crate) fn whole_cost(&self, unit: Unit) -> f64 {
        let backward = self.goes_backward(unit.module, unit.microbatch());
        self.unit_cost(unit, Phase::Forward) + if backward { self.backward_cost(unit) } else { 0.0 }
    }

    /// The least time in which a unit's gradients can be had.
    pub(crate) fn backward_cost(&self, unit: Unit) -> f64 {
        let [whole, input, weight] = [Phase::Backward, Phase::BackwardInput, Phase::BackwardWeight]
            .map(|phase| self.unit_cost(unit, phase));
        whole.min(input + weight)
    }

    /// Time that an op takes on a rank; communication and `Step` take none of the rank's time.
    pub fn cost(&self, op: &Op, rank: Rank) -> f64 {
        match op {
            Op::Compute { phase, .. } => {
                op.units().map(|unit| self.unit_cost(unit, *phase)).sum::<f64>() * self.slowdown(rank)
            }
            Op::Overlap { forward, backward, phase } => {
                let (one, other) =
                    (self.unit_cost(*forward, Phase::Forward), self.unit_cost(*backward, *phase));
                (one.max(other) + (1.0 - self.overlap) * one.min(other)) * self.slowdown(rank)
            }
            Op::Send { .. } | Op::Recv { .. } | Op::Step => 0.0,
        }
    }
}
