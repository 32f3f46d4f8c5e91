//! The same step without a pipeline: one process, one graph per microbatch over the whole model, in the order in which
//! a textbook would write it. Nothing here is taken from schedules or from the executor.

use crate::steps::{GradientMap, STEP, lively_weights};
use anyhow::{Context as _, Result};
use bigmac::config::ParameterGroup;
use bigmac::data::{PackedMicrobatch, PictureLimits, StepPlan, load_draw_item, load_image_item};
use bigmac::model::ModelShape;
use bigmac::train::Session;
use bigmac_autograd::{Gradients, Graph, Mode, Parameters, Var};
use bigmac_kernels::{add::Add, gather_rows::GatherRows};
use bigmac_models::llava::VisionEncoder;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::{FlowMatching, SampleKey};
use bigmac_models::mmdit::{Mmdit, RopeTables, time_features};
use bigmac_models::qwen3::{Qwen3, Stage, positions};
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::ModuleKind;

/// Losses and gradients of a step.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Token loss.
    pub token_loss: f64,
    /// Drawing loss, weighted.
    pub drawing_loss: f64,
    /// Gradients.
    pub gradients: GradientMap,
}

struct Whole<'a> {
    ctx: Context,
    session: &'a Session,
    encoder: VisionEncoder,
    llm: Qwen3,
    generator: Mmdit,
    token_scale: f64,
    drawing_scale: f64,
}

/// The module that each parameter belongs to, and the parameters of all modules in one list.
fn parameters(ctx: &Context, shape: &ModelShape) -> Result<(Vec<ModuleKind>, Parameters)> {
    let (mut kinds, mut all) = (Vec::new(), Parameters::new());
    for kind in ModuleKind::ALL {
        let specs = shape.specs(kind, &Stage::whole(shape.layers(kind)))?;
        for (_, p) in lively_weights(ctx, &specs, shape.dtype)?.iter() {
            let frozen = shape.frozen[ParameterGroup::of(kind, p.name())];
            all.add(p.name(), p.tensor().clone(), p.trainable() && !frozen)?;
            kinds.push(kind);
        }
    }
    Ok((kinds, all))
}

/// Runs a step of the whole model, F32.
///
/// # Errors
/// Those of the operators and of pictures.
pub fn reference(session: &Session, plan: &StepPlan) -> Result<Reference> {
    let ctx = Context::cpu(0, 1)?;
    let shape = &session.shape;
    let (kinds, params) = parameters(&ctx, shape)?;
    let loads = &plan.microbatches;
    let targets = loads.iter().flat_map(|l| &l.targets).filter(|t| **t >= 0).count();
    let drawn: usize = loads.iter().flat_map(|l| &l.draws).map(|d| 3 * d.size * d.size).sum();
    let whole = Whole {
        encoder: VisionEncoder::new(&shape.llava, &params)?,
        llm: Qwen3::new(&shape.llava.text, Stage::whole(shape.llava.text.num_hidden_layers), &params)?,
        generator: Mmdit::new(&shape.generator, &params)?,
        token_scale: 1.0 / targets.max(1) as f64,
        drawing_scale: session.config.train.drawing_weight / drawn.max(1) as f64,
        session,
        ctx,
    };
    let mut gradients = Gradients::new(&whole.ctx, &params)?;
    let mut losses = [0.0; 2];
    for load in loads {
        for (sum, loss) in losses.iter_mut().zip(whole.microbatch(&params, load, &mut gradients)?) {
            *sum += loss;
        }
    }
    gradients.finish_step()?;
    let mut map = GradientMap::new();
    for (kind, (id, p)) in kinds.into_iter().zip(params.iter()) {
        map.insert((kind, p.name().to_owned()), gradients.view(id)?.as_slice::<f32>()?.to_vec());
    }
    let [token_loss, drawing_loss] = losses;
    Ok(Reference { token_loss, drawing_loss, gradients: map })
}

impl Whole<'_> {
    /// Token and drawing loss of a microbatch; its gradients are added up.
    fn microbatch(
        &self,
        params: &Parameters,
        load: &PackedMicrobatch,
        gradients: &mut Gradients,
    ) -> Result<[f64; 2]> {
        let mut g = Graph::recording(&self.ctx, params);
        let hidden = self.hidden(&mut g, load)?;
        let targets = g.constant(Tensor::from_slice(&self.ctx, &load.targets, &[load.targets.len()])?);
        let token = self.llm.loss(&mut g, &hidden, &targets, self.token_scale)?;
        let mut sum = token.clone();
        let mut drawing = 0.0;
        for draw in 0..load.draws.len() {
            let loss = self.draw(&mut g, load, draw, &hidden)?;
            drawing += f64::from(number(&loss)?);
            sum = g.apply(Add, &[&sum, &loss], &[])?;
        }
        let losses = [f64::from(number(&token)?), drawing];
        if let Some(id) = sum.id() {
            let one = Tensor::from_slice(&self.ctx, &[1.0f32], &[1])?;
            g.finish().backward(&self.ctx, params, [(id, one)], gradients, Mode::Full)?;
        }
        Ok(losses)
    }

    /// Encoder, embedding, layers and final norm.
    fn hidden(&self, g: &mut Graph<'_>, load: &PackedMicrobatch) -> Result<Var> {
        let mut images = Vec::new();
        for image in &load.images {
            let pixels = Tensor::from_slice(
                &self.ctx,
                &load_image_item(image, &PictureLimits::of(&self.session.config.data))?,
                &[3, image.size, image.size],
            )?;
            let pixels = g.constant(pixels);
            images.push((image.rows.clone(), self.encoder.forward(g, &pixels)?));
        }
        let tokens: Vec<i32> = load.tokens.iter().map(|&t| t as i32).collect();
        let tokens = g.constant(Tensor::from_slice(&self.ctx, &tokens, &[tokens.len()])?);
        let embedded = self.llm.embed(g, &tokens, &images)?;
        let dtype = self.session.shape.dtype;
        let (cos, sin) = self.llm.rope(&self.ctx, &positions(&load.bounds), dtype)?;
        let (cos, sin) = (g.constant(cos), g.constant(sin));
        let hidden = self.llm.layers(g, &embedded, (&cos, &sin), &load.bounds.as_slice().into())?;
        Ok(self.llm.final_norm(g, &hidden)?)
    }

    /// The loss of one drawing.
    fn draw(&self, g: &mut Graph<'_>, load: &PackedMicrobatch, number: usize, hidden: &Var) -> Result<Var> {
        let (ctx, shape) = (&self.ctx, &self.session.shape);
        let draw = &load.draws[number];
        let cond = g.apply(GatherRows { rows: draw.cond_rows.clone().collect() }, &[hidden], &[])?;
        let picture = Tensor::from_slice(
            ctx,
            &load_draw_item(draw, &PictureLimits::of(&self.session.config.data))?,
            &[3, draw.size, draw.size],
        )?;
        let flow = FlowMatching { mean: self.session.config.train.noise_mean, ..FlowMatching::default() };
        let key = SampleKey { seed: self.session.config.run.seed, step: STEP as u32, sample: draw.sample };
        let noised = flow.noised(ctx, &shape.codec.encode(ctx, &picture)?, key, shape.dtype)?;
        let time = g.constant(time_features(ctx, noised.time, shape.dtype)?);
        let (latents, target) = (g.constant(noised.latents), g.constant(noised.target));
        let grid = shape.codec.grid(draw.size, draw.size)?;
        let rope = RopeTables::new(ctx, &shape.generator, grid, draw.cond_rows.len(), shape.dtype)?;
        let rotations = rope.constants(g);
        let velocity = self.generator.forward(g, &latents, &time, &cond, &rotations)?;
        Ok(Mmdit::loss(g, &velocity, &target, self.drawing_scale)?)
    }
}

fn number(loss: &Var) -> Result<f32> {
    loss.tensor().as_slice::<f32>()?.first().copied().context("a loss is a number")
}
