//! What a rank holds of the model: a replica of the encoder, its chunks of the LLM, a replica of the generator.

mod shape;

pub use bigmac_models::qwen3::split_layers;
pub use shape::ModelShape;

use crate::schedule::{Chunk, Module, ModuleKind};
use bigmac_autograd::{Gradients, Parameters};
use bigmac_models::init::{self, ParameterSpec};
use bigmac_models::llava::VisionEncoder;
use bigmac_models::mmdit::Mmdit;
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Result};

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

impl<N> Replica<N> {
    fn new(
        ctx: &Context,
        kind: ModuleKind,
        specs: Vec<ParameterSpec>,
        frozen: bool,
        values: &Values<'_>,
        net: impl FnOnce(&Parameters) -> Result<N>,
    ) -> Result<Self> {
        let mut params = values(&ctx.in_scope(scopes::PARAMETERS), kind, &specs)?;
        if frozen {
            params.set_trainable(false);
        }
        let gradients = Gradients::new(&ctx.in_scope(scopes::GRADIENTS), &params)?;
        Ok(Replica { net: net(&params)?, specs, params, gradients })
    }
}

/// Where parameters come from: random numbers, a checkpoint, another layout of the same model.
pub type Values<'a> = dyn Fn(&Context, ModuleKind, &[ParameterSpec]) -> Result<Parameters> + 'a;

/// Everything that one rank holds. On one rank alone this is the whole model.
#[derive(Debug)]
pub struct RankModules {
    /// Encoder and projector.
    pub encoder: Replica<VisionEncoder>,
    /// The LLM chunks that live here, in order.
    pub llm: Vec<(Chunk, Replica<Qwen3>)>,
    /// Generator.
    pub generator: Replica<Mmdit>,
}

impl RankModules {
    /// The modules of `rank` among `ranks` with `chunks` LLM chunks each.
    ///
    /// # Errors
    /// Those of `values`, of allocation, and [`Error::Argument`] for a shape that doesn't fit.
    pub fn new(
        ctx: &Context,
        shape: &ModelShape,
        rank: usize,
        ranks: usize,
        chunks: usize,
        values: &Values<'_>,
    ) -> Result<Self> {
        let frozen = shape.frozen;
        let encoder = Replica::new(
            ctx,
            ModuleKind::Encoder,
            shape.encoder_specs()?,
            frozen.encoder,
            values,
            |params| VisionEncoder::new(&shape.llava, params),
        )?;
        let llm = shape
            .stages(rank, ranks, chunks)?
            .into_iter()
            .map(|(chunk, stage)| {
                let specs = Qwen3::parameters(&shape.llava.text, &stage);
                let replica = Replica::new(ctx, ModuleKind::Llm, specs, frozen.llm, values, |params| {
                    Qwen3::new(&shape.llava.text, stage, params)
                })?;
                Ok((chunk, replica))
            })
            .collect::<Result<Vec<_>>>()?;
        let generator = Replica::new(
            ctx,
            ModuleKind::Generator,
            Mmdit::parameters(&shape.generator),
            frozen.generator,
            values,
            |params| Mmdit::new(&shape.generator, params),
        )?;
        Ok(RankModules { encoder, llm, generator })
    }

    /// As [`RankModules::new`] with random values, which depend on `seed` and the parameter's name alone.
    ///
    /// # Errors
    /// As [`RankModules::new`].
    pub fn random(
        ctx: &Context,
        shape: &ModelShape,
        rank: usize,
        ranks: usize,
        chunks: usize,
        seed: u64,
    ) -> Result<Self> {
        let dtype = shape.dtype;
        Self::new(ctx, shape, rank, ranks, chunks, &|ctx, _, specs| init::random(ctx, specs, dtype, seed))
    }

    /// The LLM chunk of that number.
    ///
    /// # Errors
    /// [`Error::Argument`] when it lives elsewhere.
    pub fn stage(&self, chunk: Chunk) -> Result<&Replica<Qwen3>> {
        self.llm.iter().find(|(c, _)| *c == chunk).map(|(_, s)| s).ok_or_else(|| elsewhere(chunk))
    }

    /// As [`RankModules::stage`], to be changed.
    ///
    /// # Errors
    /// [`Error::Argument`] when it lives elsewhere.
    pub fn stage_mut(&mut self, chunk: Chunk) -> Result<&mut Replica<Qwen3>> {
        self.llm.iter_mut().find(|(c, _)| *c == chunk).map(|(_, s)| s).ok_or_else(|| elsewhere(chunk))
    }

    /// The uncut LLM.
    ///
    /// # Errors
    /// [`Error::Argument`] on a rank that holds a part of it only.
    pub fn whole_llm(&self) -> Result<&Replica<Qwen3>> {
        match &self.llm[..] {
            [(_, llm)] if llm.net.stage().first && llm.net.stage().last => Ok(llm),
            _ => Err(Error::argument(
                "model",
                "this rank holds a part of the LLM; bring the whole model together first",
            )),
        }
    }

    /// Parameters and gradients of a module.
    ///
    /// # Errors
    /// [`Error::Argument`] for an LLM chunk that lives elsewhere.
    pub fn of(&mut self, module: Module) -> Result<(&Parameters, &mut Gradients)> {
        match module {
            Module::Encoder(_) => Ok((&self.encoder.params, &mut self.encoder.gradients)),
            Module::Generator(_) => Ok((&self.generator.params, &mut self.generator.gradients)),
            Module::Llm(chunk) => self.stage_mut(chunk).map(|s| (&s.params, &mut s.gradients)),
        }
    }

    /// Every module with its kind: specs, parameters, gradients.
    pub fn parts(&self) -> impl Iterator<Item = (ModuleKind, &[ParameterSpec], &Parameters, &Gradients)> {
        let (e, g) = (&self.encoder, &self.generator);
        std::iter::once((ModuleKind::Encoder, &e.specs[..], &e.params, &e.gradients))
            .chain(self.llm.iter().map(|(_, s)| (ModuleKind::Llm, &s.specs[..], &s.params, &s.gradients)))
            .chain(std::iter::once((ModuleKind::Generator, &g.specs[..], &g.params, &g.gradients)))
    }

    /// The same, in the same order, with parameters to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = (&mut Parameters, &mut Gradients)> {
        std::iter::once((&mut self.encoder.params, &mut self.encoder.gradients))
            .chain(self.llm.iter_mut().map(|(_, s)| (&mut s.params, &mut s.gradients)))
            .chain(std::iter::once((&mut self.generator.params, &mut self.generator.gradients)))
    }

    /// Starts a step: gradients will be overwritten.
    pub fn begin_step(&mut self) {
        self.parts_mut().for_each(|(_, gradients)| gradients.begin_step());
    }

    /// Ends a step: gradients that nothing was written to become zero.
    ///
    /// # Errors
    /// [`Error::Shared`] when a buffer is still held.
    pub fn finish_step(&mut self) -> Result<()> {
        self.parts_mut().try_for_each(|(_, gradients)| gradients.finish_step())
    }
}

fn elsewhere(chunk: Chunk) -> Error {
    Error::argument("model", format!("LLM chunk {} doesn't live on this rank", chunk.0))
}
