//! What a step computes: how each unit of work is put together from the models, the packed microbatches and the values
//! that other ops made. The same code runs a unit and foretells what it will save.

use super::error::ExecuteError;
use super::inputs::Inputs;
use super::unit::Forwarded;
use crate::data::{DrawItem, ImageItem, PackedMicrobatch, StepPlan};
use crate::model::{ModelShape, RankModules};
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::FlowMatching;
use bigmac_runtime::{Context, Spec};
use bigmac_schedule::{Item, Microbatch, Module, ModuleKind, Piece, Rank, Unit, Value, Workload};

/// One step's work, and everything that is the same for all of its units.
#[derive(Debug)]
pub struct StepTask<'a> {
    /// The packed microbatches.
    pub plan: &'a StepPlan,
    /// The model.
    pub shape: &'a ModelShape,
    /// Seed of the noise.
    pub seed: u64,
    /// The step, from 0: it keys the noise.
    pub step: u64,
    /// Weight of the drawing loss (lambda).
    pub drawing_weight: f64,
    /// How noise levels are drawn.
    pub flow: FlowMatching,
}

/// How a unit is connected to others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// It is recorded for its backward.
    pub learns: bool,
    /// What is below its module has a backward: encoder items below the LLM, the LLM below the generator.
    pub below: bool,
    /// It is of the module's last chunk.
    pub last: bool,
}

impl StepTask<'_> {
    /// The step, from 0.
    pub fn step(&self) -> u64 {
        self.step
    }

    pub(super) fn load(&self, microbatch: Microbatch) -> Result<&PackedMicrobatch, ExecuteError> {
        self.plan.microbatches.get(microbatch.0).ok_or_else(|| ExecuteError::Missing {
            rank: Rank(0),
            what: format!("microbatch {} of a step with {}", microbatch.0, self.plan.microbatches.len()),
        })
    }

    pub(super) fn image(&self, item: Item) -> Result<&ImageItem, ExecuteError> {
        let missing = || ExecuteError::Missing { rank: Rank(0), what: format!("the image of {item:?}") };
        self.load(item.microbatch)?.images.get(item.index).ok_or_else(missing)
    }

    pub(super) fn draw(&self, item: Item) -> Result<&DrawItem, ExecuteError> {
        let missing = || ExecuteError::Missing { rank: Rank(0), what: format!("the drawing of {item:?}") };
        self.load(item.microbatch)?.draws.get(item.index).ok_or_else(missing)
    }

    /// Shape and dtype of a value: both of its ends compute them from the plan.
    ///
    /// # Errors
    /// [`ExecuteError::Missing`] for a value that the step doesn't have.
    pub fn value_spec(&self, value: Value) -> Result<Spec, ExecuteError> {
        let (shape, width) = (self.shape, self.shape.width());
        let [rows, width] = match value {
            Value::Hidden { microbatch, .. } | Value::HiddenGrad { microbatch, .. } => {
                [self.load(microbatch)?.tokens.len(), width]
            }
            Value::Embeds(item) | Value::EmbedGrad(item) => [self.image(item)?.rows.len(), width],
            Value::Cond(item) | Value::CondGrad(item) => [self.draw(item)?.cond_rows.len(), width],
            Value::EncoderHidden { .. } | Value::EncoderHiddenGrad { .. } => {
                [shape.llava.vision.tokens(), shape.llava.vision.hidden_size]
            }
            Value::GeneratorHidden { item, .. } | Value::GeneratorHiddenGrad { item, .. } => {
                let draw = self.draw(item)?;
                let patches = shape.codec.grid(draw.size, draw.size)?.patches();
                // As packed by the generator's stages: text, image, and a row of time.
                [draw.cond_rows.len() + patches + 1, shape.generator.inner_dim()]
            }
        };
        Ok(Spec::new(&[rows, width], shape.dtype))
    }

    pub(super) fn unit(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let backward = |kind| workload.has_backward(kind, unit.microbatch());
        let learns = inputs.records() && backward(unit.module.kind());
        let flow = |below, chunks: usize| Flow { learns, below, last: unit.module.chunk().0 + 1 == chunks };
        match (unit.module, unit.piece) {
            (Module::Encoder(chunk), Piece::Item(item)) => {
                let flow = flow(false, workload.chunks_of(ModuleKind::Encoder));
                self.encode(ctx, modules.encoder(chunk)?, chunk, item, flow, inputs)
            }
            (Module::Generator(chunk), Piece::Item(item)) => {
                let flow = flow(backward(ModuleKind::Llm), workload.chunks_of(ModuleKind::Generator));
                self.generate(ctx, modules.generator(chunk)?, chunk, item, flow, inputs)
            }
            (Module::Llm(chunk), Piece::Microbatch(m)) => {
                let flow = flow(backward(ModuleKind::Encoder), workload.chunks());
                self.read(ctx, modules.stage(chunk)?, chunk, m, flow, inputs)
            }
            _ => Err(ExecuteError::Missing { rank: Rank(0), what: format!("a model for {unit:?}") }),
        }
    }
}
