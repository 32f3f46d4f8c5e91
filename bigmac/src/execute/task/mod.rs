//! What a step computes: how each unit of work is put together from the models, the packed microbatches and the values
//! that other ops made. The same code runs a unit and predicts what it will save.

mod encoder;
mod generator;
mod llm;

use super::error::ExecuteError;
use super::unit::{Inputs, UnitForward, UnitOutput};
use crate::config::Config;
use crate::data::{DrawItem, ImageItem, PackedMicrobatch, StepPictures, StepPlan};
use crate::model::{ModelShape, RankModules};
use bigmac_autograd::Graph;
use bigmac_comm::control::Position;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::FlowMatching;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use bigmac_schedule::{Chunk, Item, Microbatch, Module, ModuleKind, Phase, Piece, Unit, Value, Workload};

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
    /// Pixels of the step's items; none where it is planned only.
    pub pictures: Option<&'a StepPictures>,
    /// Where other processes learn which op a rank is at; none where ranks are threads.
    pub position: Option<&'a Position>,
}

impl<'a> StepTask<'a> {
    /// The task of a step of a run, to be planned: without pixels.
    pub fn new(config: &Config, shape: &'a ModelShape, plan: &'a StepPlan, step: u64) -> Self {
        let (seed, drawing_weight) = (config.run.seed, config.train.drawing_weight);
        let flow = FlowMatching { mean: config.train.noise_mean, ..FlowMatching::default() };
        StepTask { plan, shape, seed, step, drawing_weight, flow, pictures: None, position: None }
    }

    /// The same, to be run: with the pixels of its items.
    pub fn with_pictures(self, pictures: &'a StepPictures) -> Self {
        StepTask { pictures: Some(pictures), ..self }
    }

    fn load(&self, microbatch: Microbatch) -> Result<&PackedMicrobatch> {
        let loads = &self.plan.microbatches;
        let missing = || format!("microbatch {} not found: the step has {}", microbatch.0, loads.len());
        loads.get(microbatch.0).ok_or_else(|| Error::argument("step", missing()))
    }

    /// Pixels of the step's items.
    fn pictures(&self) -> Result<&StepPictures> {
        self.pictures.ok_or_else(|| Error::argument("step", "it is planned only, and has no pictures"))
    }

    pub(super) fn image(&self, item: Item) -> Result<&ImageItem> {
        let missing = || Error::argument("step", format!("image not found: {item:?}"));
        self.load(item.microbatch)?.images.get(item.index).ok_or_else(missing)
    }

    pub(super) fn draw(&self, item: Item) -> Result<&DrawItem> {
        let missing = || Error::argument("step", format!("drawing not found: {item:?}"));
        self.load(item.microbatch)?.draws.get(item.index).ok_or_else(missing)
    }

    /// Shape and dtype of a value: both of its ends compute them from the plan.
    ///
    /// # Errors
    /// [`Error::Argument`] for a value that the step does not have.
    pub fn value_spec(&self, value: Value) -> Result<Spec> {
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

    /// Puts the forward of a unit together in `graph`, a graph over the parameters of the unit's module. `inputs` are
    /// the values that other ops made.
    pub(super) fn forward(
        &self,
        graph: Graph<'_>,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
        inputs: Inputs,
    ) -> Result<UnitOutput, ExecuteError> {
        let graph = graph.recomputing(self.shape.recompute[unit.module.kind()]);
        let mut forward = UnitForward::new(graph, inputs);
        match (unit.module, unit.piece) {
            (Module::Encoder(chunk), Piece::Item(item)) => {
                let before = Module::Encoder(Chunk(chunk.0.saturating_sub(1)));
                let below = workload.goes_backward(before, item.microbatch);
                self.encoder(&mut forward, &modules.encoder.get(chunk)?.net, chunk, item, below)?;
            }
            (Module::Llm(chunk), Piece::Microbatch(m)) => {
                let below = workload.has_backward(ModuleKind::Encoder, m);
                self.llm(&mut forward, &modules.llm.get(chunk)?.net, &modules.rotary, chunk, m, below)?;
            }
            (Module::Generator(chunk), Piece::Item(item)) => {
                let below = workload.has_backward(ModuleKind::Llm, item.microbatch);
                let net = &modules.generator.get(chunk)?.net;
                self.generator(&mut forward, net, &modules.rotary, chunk, item, below)?;
            }
            _ => return Err(Error::argument("step", format!("no model runs {unit:?}")).into()),
        }
        Ok(forward.finish())
    }

    /// The bytes that the forward of a unit will save for its backward, exactly, without computing it.
    ///
    /// # Errors
    /// Those of the operators' shape checks, and [`Error::Argument`] for a unit that is not of this step.
    pub fn saved_bytes(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
    ) -> Result<usize, ExecuteError> {
        if !workload.goes_backward(unit.module, unit.microbatch()) {
            return Ok(0);
        }
        let planned = |value| Ok((value, Tensor::shape_only(&self.value_spec(value)?)));
        let inputs =
            unit.consumes(Phase::Forward, workload).into_iter().map(planned).collect::<Result<_>>()?;
        let graph = Graph::planning(ctx, modules.params(unit.module)?);
        let forwarded = self.forward(graph, modules, workload, unit, inputs)?;
        Ok(forwarded.recorded.map_or(0, |recorded| recorded.tape.saved_bytes()))
    }
}
