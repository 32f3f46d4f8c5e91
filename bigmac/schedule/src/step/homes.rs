//! Where the modules of a workload live.

use crate::step::costs::{WorkloadError, check_time};
use crate::step::placement::{Chain, ChainPart, ChunkPlacement, Layers};
use crate::step::table::{Chunk, Module, ModuleKind, Rank};
use crate::step::workload::Workload;

impl Workload {
    /// The same with known numbers of layers: a chain is then cut between layers.
    ///
    /// # Errors
    /// Where the head's cost is negative or not finite.
    pub fn with_layers(mut self, layers: Layers) -> Result<Workload, WorkloadError> {
        check_time(|| "the cost of the LLM's output matrix in layers".to_owned(), layers.head)?;
        self.layers = Some(layers);
        Ok(self)
    }

    /// Numbers of layers, where they are known.
    pub fn layers(&self) -> Option<Layers> {
        self.layers
    }

    /// The same with the LLM's chunks on other ranks.
    pub fn with_placement(mut self, placement: ChunkPlacement) -> Workload {
        self.placement = placement;
        self
    }

    /// Which ranks the LLM's chunks live on, unless there is a [`chain`](Workload::chain).
    pub fn placement(&self) -> ChunkPlacement {
        self.placement
    }

    /// Where the modules' parts live, if encoder, LLM and generator are one chain of parts. Otherwise every rank holds
    /// `chunks_per_rank` chunks of the LLM and all of encoder and generator.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// How many chunks a module is cut into: the LLM into p v, or as many as it has parts in a chain.
    pub fn chunks_of(&self, kind: ModuleKind) -> usize {
        match (&self.chain, kind) {
            (Some(chain), _) => chain.parts[kind].len(),
            (None, ModuleKind::Llm) => self.ranks() * self.chunks_per_rank(),
            (None, ModuleKind::Encoder | ModuleKind::Generator) => 1,
        }
    }

    /// Whether no chunk of the module comes after this one.
    pub(crate) fn is_last(&self, module: Module) -> bool {
        module.chunk().0 + 1 >= self.chunks_of(module.kind())
    }

    /// The rank that an LLM chunk lives on.
    pub fn rank_of(&self, chunk: Chunk) -> Rank {
        self.home(Module::Llm(chunk)).unwrap_or(Rank(0))
    }

    /// The one rank that holds a module; `None` for one that all ranks hold.
    pub fn home(&self, module: Module) -> Option<Rank> {
        match (&self.chain, module) {
            (Some(_), _) => self.part(module).map(|part| part.rank),
            (None, Module::Llm(chunk)) => Some(self.placement().rank_of(chunk, self.ranks())),
            (None, Module::Encoder(_) | Module::Generator(_)) => None,
        }
    }

    fn part(&self, module: Module) -> Option<&ChainPart> {
        self.chain.as_ref()?.parts[module.kind()].get(module.chunk().0)
    }

    /// The share of an item's cost and bytes that a chunk of encoder or generator has.
    pub(crate) fn share_of(&self, module: Module) -> f64 {
        self.part(module).map_or(1.0, |part| part.share)
    }
}
