//! What a rank holds of the model: its chunks of encoder, LLM and generator, or copies of what every rank holds.

mod placement;
mod shape;

pub use bigmac_models::stage::split_layers;
pub use placement::{Placed, Placement};
pub use shape::ModelShape;

use bigmac_autograd::{Gradients, Parameters};
use bigmac_kernels::rope::RopeCache;
use bigmac_models::init::{self, ParameterSpec};
use bigmac_models::llava::VisionEncoder;
use bigmac_models::mmdit::{Mmdit, RopeTableCache};
use bigmac_models::qwen3::Qwen3;
use bigmac_models::stage::Stage;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Result};
use bigmac_schedule::{Chunk, Module, ModuleKind, Rank};

/// A network with its own parameters and gradients.
#[derive(Debug)]
pub struct Replica<N> {
    /// The network: which parameter is what.
    pub net: N,
    /// What the parameters are called and how they start.
    pub specs: Vec<ParameterSpec>,
    /// Their values.
    pub params: Parameters,
    /// Their gradients in the step at hand.
    pub gradients: Gradients,
}

/// The chunks of a module that a rank holds, or its copy of the whole module, in the order of its layers.
#[derive(Debug)]
pub struct Chunks<N> {
    kind: ModuleKind,
    /// The module is not cut.
    whole: bool,
    /// Each with its number.
    pub list: Vec<(Chunk, Replica<N>)>,
}

impl<N> Chunks<N> {
    /// The chunk of that number.
    ///
    /// # Errors
    /// [`Error::Argument`] when it lives elsewhere.
    pub fn get(&self, chunk: Chunk) -> Result<&Replica<N>> {
        let found = self.list.iter().find(|(here, _)| *here == chunk);
        found.map(|(_, replica)| replica).ok_or_else(|| elsewhere(self.kind, chunk))
    }

    /// As [`Chunks::get`], to be changed.
    pub fn get_mut(&mut self, chunk: Chunk) -> Result<&mut Replica<N>> {
        let found = self.list.iter_mut().find(|(here, _)| *here == chunk);
        found.map(|(_, replica)| replica).ok_or_else(|| elsewhere(self.kind, chunk))
    }

    /// The uncut module.
    ///
    /// # Errors
    /// [`Error::Argument`] on a rank that holds a part of it only.
    pub fn whole(&self) -> Result<&Replica<N>> {
        let whole = self.list.first().filter(|_| self.whole).map(|(_, replica)| replica);
        whole.ok_or_else(|| {
            let kind = self.kind;
            let message =
                format!("this rank holds only a part of the {kind}; bring the whole model together first");
            Error::argument("model", message)
        })
    }

    fn parts(&self) -> impl Iterator<Item = (ModuleKind, &[ParameterSpec], &Parameters, &Gradients)> {
        self.list.iter().map(|(_, r)| (self.kind, &r.specs[..], &r.params, &r.gradients))
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = (ModuleKind, &mut Parameters, &mut Gradients)> {
        let kind = self.kind;
        self.list.iter_mut().map(move |(_, r)| (kind, &mut r.params, &mut r.gradients))
    }
}

fn elsewhere(kind: ModuleKind, chunk: Chunk) -> Error {
    Error::argument("model", format!("{kind} chunk {} does not live on this rank", chunk.0))
}

/// Rotary tables that a rank has computed, for all of its chunks and steps.
#[derive(Debug, Default)]
pub struct Rotary {
    /// Those of the LLM.
    pub text: RopeCache,
    /// Those of the generator.
    pub drawings: RopeTableCache,
}

/// Where parameters come from: random numbers, a checkpoint, another layout of the same model.
pub type Values<'a> = dyn Fn(&Context, ModuleKind, &[ParameterSpec]) -> Result<Parameters> + 'a;

/// Everything that one rank holds. On one rank alone this is the whole model.
#[derive(Debug)]
pub struct RankModules {
    /// Encoder and projector.
    pub encoder: Chunks<VisionEncoder>,
    /// LLM.
    pub llm: Chunks<Qwen3>,
    /// Generator.
    pub generator: Chunks<Mmdit>,
    /// Rotary tables so far.
    pub rotary: Rotary,
    placement: Placement,
}

/// Which chunks to make, of what.
struct Maker<'a> {
    ctx: &'a Context,
    shape: &'a ModelShape,
    placement: &'a Placement,
    /// `None`: the chunks of all ranks.
    rank: Option<Rank>,
    values: &'a Values<'a>,
}

impl Maker<'_> {
    fn chunks<N>(
        &self,
        kind: ModuleKind,
        net: impl Fn(Stage, &Parameters) -> Result<N>,
    ) -> Result<Chunks<N>> {
        let here =
            |placed: &&Placed| self.rank.is_none() || placed.home.is_none_or(|home| Some(home) == self.rank);
        let placed = self.placement.chunks(kind).iter().filter(here);
        let list = placed.map(|placed| Ok((placed.chunk, self.replica(kind, &placed.stage, &net)?)));
        let whole = self.placement.chunks(kind).iter().all(|placed| placed.stage.is_whole());
        Ok(Chunks { kind, whole, list: list.collect::<Result<_>>()? })
    }

    fn replica<N>(
        &self,
        kind: ModuleKind,
        stage: &Stage,
        net: impl Fn(Stage, &Parameters) -> Result<N>,
    ) -> Result<Replica<N>> {
        let specs = self.shape.specs(kind, stage)?;
        let params = (self.values)(&self.ctx.in_scope(scopes::PARAMETERS), kind, &specs)?;
        let gradients = Gradients::new(&self.ctx.in_scope(scopes::GRADIENTS), &params)?;
        Ok(Replica { net: net(stage.clone(), &params)?, specs, params, gradients })
    }

    fn make(&self) -> Result<RankModules> {
        let shape = self.shape;
        Ok(RankModules {
            encoder: self.chunks(ModuleKind::Encoder, |stage, params| {
                VisionEncoder::of_stage(&shape.llava, stage, params)
            })?,
            llm: self
                .chunks(ModuleKind::Llm, |stage, params| Qwen3::new(&shape.llava.text, stage, params))?,
            generator: self.chunks(ModuleKind::Generator, |stage, params| {
                Mmdit::of_stage(&shape.generator, stage, params)
            })?,
            rotary: Rotary::default(),
            placement: self.placement.clone(),
        })
    }
}

impl RankModules {
    /// What `rank` holds under `placement`.
    ///
    /// # Errors
    /// Those of `values`, of allocation, and [`Error::Argument`] for a shape that does not fit.
    pub fn new(
        ctx: &Context,
        shape: &ModelShape,
        placement: &Placement,
        rank: usize,
        values: &Values<'_>,
    ) -> Result<Self> {
        Maker { ctx, shape, placement, rank: Some(Rank(rank)), values }.make()
    }

    /// As [`RankModules::new`] with random values, which depend on `seed` and the parameter's name alone.
    pub fn random(
        ctx: &Context,
        shape: &ModelShape,
        placement: &Placement,
        rank: usize,
        seed: u64,
    ) -> Result<Self> {
        Self::new(ctx, shape, placement, rank, &|ctx, _, specs| init::random(ctx, specs, shape.dtype, seed))
    }

    /// What all ranks hold together, without values: for predicting what units save.
    ///
    /// # Errors
    /// [`Error::Argument`] for a shape that does not fit.
    pub fn planned(ctx: &Context, shape: &ModelShape, placement: &Placement) -> Result<Self> {
        let values = |_: &Context, _, specs: &[ParameterSpec]| init::shape_only(specs, shape.dtype);
        Maker { ctx, shape, placement, rank: None, values: &values }.make()
    }

    /// Where all chunks live.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Parameters of a chunk.
    ///
    /// # Errors
    /// [`Error::Argument`] when it lives elsewhere.
    pub fn params(&self, module: Module) -> Result<&Parameters> {
        match module {
            Module::Encoder(chunk) => self.encoder.get(chunk).map(|replica| &replica.params),
            Module::Llm(chunk) => self.llm.get(chunk).map(|replica| &replica.params),
            Module::Generator(chunk) => self.generator.get(chunk).map(|replica| &replica.params),
        }
    }

    /// Parameters and gradients of a chunk.
    ///
    /// # Errors
    /// [`Error::Argument`] for one that lives elsewhere.
    pub fn of(&mut self, module: Module) -> Result<(&Parameters, &mut Gradients)> {
        match module {
            Module::Encoder(chunk) => self.encoder.get_mut(chunk).map(Replica::split),
            Module::Llm(chunk) => self.llm.get_mut(chunk).map(Replica::split),
            Module::Generator(chunk) => self.generator.get_mut(chunk).map(Replica::split),
        }
    }

    /// Every chunk with its kind: specs, parameters, gradients. Encoder, LLM, generator, each in the order of its
    /// layers.
    pub fn parts(&self) -> impl Iterator<Item = (ModuleKind, &[ParameterSpec], &Parameters, &Gradients)> {
        self.encoder.parts().chain(self.llm.parts()).chain(self.generator.parts())
    }

    /// The same, in the same order, to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = (ModuleKind, &mut Parameters, &mut Gradients)> {
        self.encoder.parts_mut().chain(self.llm.parts_mut()).chain(self.generator.parts_mut())
    }

    /// Starts a step: gradients will be overwritten.
    pub fn begin_step(&mut self) {
        self.parts_mut().for_each(|(_, _, gradients)| gradients.begin_step());
    }

    /// Ends a step: gradients that nothing was written to become zero.
    ///
    /// # Errors
    /// [`Error::Shared`] when a buffer is still held.
    pub fn finish_step(&mut self) -> Result<()> {
        self.parts_mut().try_for_each(|(_, _, gradients)| gradients.finish_step())
    }
}

impl<N> Replica<N> {
    fn split(&mut self) -> (&Parameters, &mut Gradients) {
        (&self.params, &mut self.gradients)
    }
}
