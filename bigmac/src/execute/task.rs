//! What a step computes: how each unit of work is put together from the models, the packed microbatches and the values
//! that other ops made. The same code runs a unit and foretells what it will save.

use super::error::ExecuteError;
use super::unit::{End, Forwarded, LossPart, Recorded, Start};
use crate::data::{DrawItem, ImageItem, PackedMicrobatch, StepPlan, load_draw_item, load_image_item};
use crate::model::{RankModules, Replica};
use crate::schedule::{Chunk, Item, Microbatch, Module, ModuleKind, Piece, Rank, Unit, Value, Workload};
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::{GatherRows, cast::cast};
use bigmac_models::mmdit::codec::{Codec, PixelCodec};
use bigmac_models::mmdit::flow::{FlowMatching, SampleKey};
use bigmac_models::mmdit::{Grid, Mmdit, MmditConfig, RopeTables, time_features};
use bigmac_models::qwen3::{Qwen3, positions};
use bigmac_runtime::{Context, DType, Spec, Tensor};
use std::sync::Arc;

/// One step's work, and everything that is the same for all of its units.
#[derive(Debug)]
pub struct StepTask<'a> {
    /// The packed microbatches.
    pub plan: &'a StepPlan,
    /// Seed of the noise.
    pub seed: u64,
    /// The step, from 0: it keys the noise.
    pub step: u64,
    /// Weight of the drawing loss (lambda).
    pub drawing_weight: f64,
    /// How noise levels are drawn.
    pub flow: FlowMatching,
    /// Between pictures and latents.
    pub codec: PixelCodec,
    /// Width of the LLM's hidden states.
    pub width: usize,
    /// The type that is computed with.
    pub dtype: DType,
}

/// Where the tensors that enter a unit come from: other ops and files when it runs, nowhere when it is planned.
trait Inputs {
    /// A value that another op made.
    fn value(&mut self, value: Value, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Pixels of an image, [3, side, side].
    fn image(&mut self, item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Noised latents, the velocity to be learned, [patches, channels] both, and features of the time.
    fn drawing(&mut self, item: &DrawItem, latents: &Spec) -> Result<[Tensor; 3], ExecuteError>;
    /// Whether the unit is recorded for a backward, where it has one.
    fn records(&self) -> bool;
    /// A graph for a unit that is recorded, or isn't.
    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, recorded: bool) -> Graph<'g>;
}

/// Inputs of a unit that runs.
struct Live<'a, 't> {
    task: &'a StepTask<'t>,
    ctx: &'a Context,
    records: bool,
    take: &'a mut dyn FnMut(Value) -> Result<Tensor, ExecuteError>,
}

impl Inputs for Live<'_, '_> {
    fn value(&mut self, value: Value, _spec: &Spec) -> Result<Tensor, ExecuteError> {
        (self.take)(value)
    }

    fn image(&mut self, item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError> {
        let pixels = Tensor::from_slice(self.ctx, &load_image_item(item)?, &spec.shape)?;
        Ok(cast(self.ctx, &pixels, spec.dtype)?)
    }

    fn drawing(&mut self, item: &DrawItem, latents: &Spec) -> Result<[Tensor; 3], ExecuteError> {
        let task = self.task;
        let picture = Tensor::from_slice(self.ctx, &load_draw_item(item)?, &[3, item.size, item.size])?;
        let clean = task.codec.encode(self.ctx, &picture)?;
        let key = SampleKey { seed: task.seed, step: task.step as u32, sample: item.sample };
        let noised = task.flow.noised(self.ctx, &clean, key, latents.dtype)?;
        Ok([noised.latents, noised.target, time_features(self.ctx, noised.time, latents.dtype)?])
    }

    fn records(&self) -> bool {
        self.records
    }

    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, recorded: bool) -> Graph<'g> {
        if recorded { Graph::recording(ctx, params) } else { Graph::inference(ctx, params) }
    }
}

/// Inputs of a unit that is planned: shapes.
struct Planned;

impl Inputs for Planned {
    fn value(&mut self, _value: Value, spec: &Spec) -> Result<Tensor, ExecuteError> {
        Ok(Tensor::shape_only(spec))
    }

    fn image(&mut self, _item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError> {
        Ok(Tensor::shape_only(spec))
    }

    fn drawing(&mut self, _item: &DrawItem, latents: &Spec) -> Result<[Tensor; 3], ExecuteError> {
        let time = Spec::new(&[MmditConfig::TIME_FEATURES], latents.dtype);
        Ok([latents, latents, &time].map(Tensor::shape_only))
    }

    fn records(&self) -> bool {
        true
    }

    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, _recorded: bool) -> Graph<'g> {
        Graph::planning(ctx, params)
    }
}

impl StepTask<'_> {
    /// The step, from 0.
    pub fn step(&self) -> u64 {
        self.step
    }

    fn load(&self, microbatch: Microbatch) -> Result<&PackedMicrobatch, ExecuteError> {
        self.plan.microbatches.get(microbatch.0).ok_or_else(|| ExecuteError::Missing {
            rank: Rank(0),
            what: format!("microbatch {} of a step with {}", microbatch.0, self.plan.microbatches.len()),
        })
    }

    fn image(&self, item: Item) -> Result<&ImageItem, ExecuteError> {
        let missing = || ExecuteError::Missing { rank: Rank(0), what: format!("the image of {item:?}") };
        self.load(item.microbatch)?.images.get(item.index).ok_or_else(missing)
    }

    fn draw(&self, item: Item) -> Result<&DrawItem, ExecuteError> {
        let missing = || ExecuteError::Missing { rank: Rank(0), what: format!("the drawing of {item:?}") };
        self.load(item.microbatch)?.draws.get(item.index).ok_or_else(missing)
    }

    /// Shape and dtype of a value: both of its ends compute them from the plan.
    ///
    /// # Errors
    /// [`ExecuteError::Missing`] for a value that the step doesn't have.
    pub fn value_spec(&self, value: Value) -> Result<Spec, ExecuteError> {
        let rows = match value {
            Value::Hidden { microbatch, .. } | Value::HiddenGrad { microbatch, .. } => {
                self.load(microbatch)?.tokens.len()
            }
            Value::Embeds(item) | Value::EmbedGrad(item) => self.image(item)?.rows.len(),
            Value::Cond(item) | Value::CondGrad(item) => self.draw(item)?.cond_rows.len(),
            Value::EncoderHidden { .. }
            | Value::EncoderHiddenGrad { .. }
            | Value::GeneratorHidden { .. }
            | Value::GeneratorHiddenGrad { .. } => {
                return Err(ExecuteError::Missing {
                    rank: Rank(0),
                    what: format!("a model cut for {value}"),
                });
            }
        };
        Ok(Spec::new(&[rows, self.width], self.dtype))
    }

    /// Runs the forward of a unit in `ctx`, whose scope its activations are counted under; it is recorded where it
    /// `records` and has a backward. `take` hands over the values that other ops made.
    pub(super) fn forward(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
        records: bool,
        take: &mut dyn FnMut(Value) -> Result<Tensor, ExecuteError>,
    ) -> Result<Forwarded, ExecuteError> {
        self.unit(ctx, modules, workload, unit, &mut Live { task: self, ctx, records, take })
    }

    /// The bytes that the forward of a unit will save for its backward, exactly, without computing it.
    ///
    /// # Errors
    /// Those of the operators' shape checks, and [`ExecuteError::Missing`] for a unit that is not of this step.
    pub fn saved_bytes(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
    ) -> Result<usize, ExecuteError> {
        if !workload.has_backward(unit.module.kind(), unit.microbatch()) {
            return Ok(0);
        }
        let forwarded = self.unit(ctx, modules, workload, unit, &mut Planned)?;
        Ok(forwarded.recorded.map_or(0, |recorded| recorded.tape.saved_bytes()))
    }

    fn unit(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let learns = inputs.records() && workload.has_backward(unit.module.kind(), unit.microbatch());
        let below = workload.has_backward(ModuleKind::Llm, unit.microbatch());
        match (unit.module, unit.piece) {
            (Module::Encoder(_), Piece::Item(item)) => self.encode(ctx, modules, item, learns, inputs),
            (Module::Generator(_), Piece::Item(item)) => {
                self.generate(ctx, modules, item, learns, below, inputs)
            }
            (Module::Llm(chunk), Piece::Microbatch(m)) => {
                let encoder = workload.has_backward(ModuleKind::Encoder, m);
                let last = chunk == workload.last_chunk();
                self.read(ctx, modules, chunk, m, Flow { learns, encoder, last }, inputs)
            }
            _ => Err(ExecuteError::Missing { rank: Rank(0), what: format!("a model for {unit:?}") }),
        }
    }

    /// An encoder item: pixels to embeddings.
    fn encode(
        &self,
        ctx: &Context,
        modules: &RankModules,
        item: Item,
        learns: bool,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let image = self.image(item)?;
        let pixels = inputs.image(image, &Spec::new(&[3, image.size, image.size], self.dtype))?;
        let encoder = &modules.encoder;
        let mut graph = inputs.graph(ctx, &encoder.params, learns);
        let pixels = graph.constant(pixels);
        let embeds = encoder.net.forward(&mut graph, &pixels)?;
        let end = End::value(&embeds, Value::EmbedGrad(item));
        let mut forwarded = Forwarded::default();
        forwarded.outputs.push((Value::Embeds(item), embeds.into_tensor()));
        if learns {
            let mut recorded = Recorded::new(graph.finish());
            recorded.ends.extend(end);
            forwarded.recorded = Some(recorded);
        }
        Ok(forwarded)
    }

    /// A generator item: hidden states and noised latents to the drawing's loss.
    fn generate(
        &self,
        ctx: &Context,
        modules: &RankModules,
        item: Item,
        learns: bool,
        below: bool,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let draw = self.draw(item)?;
        let generator = &modules.generator;
        let grid = self.codec.grid(draw.size, draw.size)?;
        let latents = Spec::new(&[grid.patches(), self.codec.channels()], self.dtype);
        let [latents, target, time] = inputs.drawing(draw, &latents)?;
        let cond = inputs.value(Value::Cond(item), &self.value_spec(Value::Cond(item))?)?;
        let mut graph = inputs.graph(ctx, &generator.params, learns);
        let cond = if below { graph.leaf(cond) } else { graph.constant(cond) };
        let rope = self.generator_rope(
            ctx,
            generator.net.config(),
            grid,
            draw.cond_rows.len(),
            graph.is_planning(),
        )?;
        let (latents, target, time) = (graph.constant(latents), graph.constant(target), graph.constant(time));
        let rotations = rope.constants(&graph);
        let velocity = generator.net.forward(&mut graph, &latents, &time, &cond, &rotations)?;
        let scale = self.drawing_weight / self.plan.drawn_elements.max(1) as f64;
        let loss = Mmdit::loss(&mut graph, &velocity, &target, scale)?;
        let (end, start) = (End::loss(&loss), Start::new(&cond, Value::CondGrad(item)));
        let mut forwarded = Forwarded::default();
        forwarded.losses.push((LossPart::Drawing, loss.into_tensor()));
        if learns {
            let mut recorded = Recorded::new(graph.finish());
            recorded.ends.extend(end);
            recorded.starts.extend(start);
            forwarded.recorded = Some(recorded);
        }
        Ok(forwarded)
    }

    fn generator_rope(
        &self,
        ctx: &Context,
        config: &MmditConfig,
        grid: Grid,
        text: usize,
        planning: bool,
    ) -> Result<RopeTables, ExecuteError> {
        if planning {
            return Ok(RopeTables::shape_only(config, grid, text, self.dtype));
        }
        Ok(RopeTables::new(ctx, config, grid, text, self.dtype)?)
    }

    /// An LLM chunk on a microbatch: tokens and embeddings, or hidden states, to hidden states, or to loss and conditions.
    fn read(
        &self,
        ctx: &Context,
        modules: &RankModules,
        chunk: Chunk,
        microbatch: Microbatch,
        flow: Flow,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let load = self.load(microbatch)?;
        let stage = modules.stage(chunk)?;
        let mut graph = inputs.graph(ctx, &stage.params, flow.learns);
        let mut starts = Vec::new();
        let hidden = if chunk.0 == 0 {
            let mut images = Vec::with_capacity(load.images.len());
            for (index, image) in load.images.iter().enumerate() {
                let item = Item { microbatch, index };
                let embeds = inputs.value(Value::Embeds(item), &self.value_spec(Value::Embeds(item))?)?;
                let embeds = if flow.encoder { graph.leaf(embeds) } else { graph.constant(embeds) };
                starts.extend(Start::new(&embeds, Value::EmbedGrad(item)));
                images.push((image.rows.clone(), embeds));
            }
            let tokens: Vec<i32> = load.tokens.iter().map(|&t| t as i32).collect();
            let tokens = graph.constant(Tensor::from_slice(ctx, &tokens, &[tokens.len()])?);
            stage.net.embed(&mut graph, &tokens, &images)?
        } else {
            let value = Value::Hidden { microbatch, chunk };
            let hidden = inputs.value(value, &self.value_spec(value)?)?;
            let hidden = if flow.learns { graph.leaf(hidden) } else { graph.constant(hidden) };
            starts.extend(Start::new(&hidden, Value::HiddenGrad { microbatch, chunk: Chunk(chunk.0 - 1) }));
            hidden
        };
        let (cos, sin) = stage.net.rope(ctx, &positions(&load.bounds), self.dtype)?;
        let (cos, sin) = (graph.constant(cos), graph.constant(sin));
        let bounds: Arc<[usize]> = load.bounds.as_slice().into();
        let hidden = stage.net.layers(&mut graph, &hidden, (&cos, &sin), &bounds)?;
        let mut forwarded = Forwarded::default();
        let mut ends = Vec::new();
        if flow.last {
            self.finish(ctx, stage, microbatch, &mut graph, hidden, &mut forwarded, &mut ends)?;
        } else {
            ends.extend(End::value(&hidden, Value::HiddenGrad { microbatch, chunk }));
            let next = Value::Hidden { microbatch, chunk: Chunk(chunk.0 + 1) };
            forwarded.outputs.push((next, hidden.into_tensor()));
        }
        if flow.learns {
            let mut recorded = Recorded::new(graph.finish());
            (recorded.starts, recorded.ends) = (starts, ends);
            forwarded.recorded = Some(recorded);
        }
        Ok(forwarded)
    }

    /// The end of the last chunk: the token loss, and the conditions of what is to be drawn.
    fn finish(
        &self,
        ctx: &Context,
        stage: &Replica<Qwen3>,
        microbatch: Microbatch,
        graph: &mut Graph<'_>,
        hidden: Var,
        forwarded: &mut Forwarded,
        ends: &mut Vec<End>,
    ) -> Result<(), ExecuteError> {
        let load = self.load(microbatch)?;
        let normed = stage.net.final_norm(graph, &hidden)?;
        if load.targets.iter().any(|&t| t >= 0) {
            let targets = graph.constant(Tensor::from_slice(ctx, &load.targets, &[load.targets.len()])?);
            let scale = 1.0 / self.plan.target_tokens.max(1) as f64;
            let loss = stage.net.loss(graph, &normed, &targets, scale)?;
            ends.extend(End::loss(&loss));
            forwarded.losses.push((LossPart::Token, loss.into_tensor()));
        }
        if load.draws.is_empty() {
            return Ok(());
        }
        let rows: Arc<[usize]> = load.draws.iter().flat_map(|d| d.cond_rows.clone()).collect();
        let conds = graph.apply(GatherRows { rows }, &[&normed], &[])?;
        let items =
            load.draws.iter().enumerate().map(|(index, d)| (Item { microbatch, index }, d.cond_rows.len()));
        ends.extend(End::rows(&conds, items.clone().map(|(item, n)| (Value::CondGrad(item), n)).collect()));
        let mut at = 0;
        for (item, rows) in items {
            let cond = conds.tensor().narrow(0, at, rows)?;
            // A copy, so that what an item holds is its own rows and nothing else.
            forwarded.outputs.push((Value::Cond(item), cond.copy(ctx)?));
            at += rows;
        }
        Ok(())
    }
}

/// What flows through an LLM chunk.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// It has a backward.
    learns: bool,
    /// So do the encoder items that it reads.
    encoder: bool,
    /// It is the last chunk.
    last: bool,
}
