//! One training step of an LLM cut into stages, chained by hand.

use anyhow::{Context as _, Result};
use bigmac_autograd::{Gradients, Graph, Mode, Parameters, Tape, Var, VarId};
use bigmac_kernels::check::{float_tensor, to_f64};
use bigmac_models::qwen3::{Qwen3, Qwen3Config, Stage, positions};
use bigmac_runtime::{Context, DType, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// One stage with its weights and gradients.
#[derive(Debug)]
pub struct StageModule {
    /// The stage's model.
    pub model: Qwen3,
    /// Its weights.
    pub parameters: Parameters,
    /// Its gradients.
    pub gradients: Gradients,
}

/// A model cut into `count` stages, each with the parameters that `load` gives.
///
/// # Errors
/// Those of `load` and of the model.
pub fn stages(
    ctx: &Context,
    config: &Qwen3Config,
    count: usize,
    load: impl Fn(&Stage) -> bigmac_runtime::Result<Parameters>,
) -> Result<Vec<StageModule>> {
    let module = |stage: Stage| {
        let parameters = load(&stage)?;
        let gradients = Gradients::new(ctx, &parameters)?;
        Ok(StageModule { model: Qwen3::new(config, stage, &parameters)?, parameters, gradients })
    };
    Stage::split(config.num_hidden_layers, count)?.into_iter().map(module).collect()
}

/// Packed tokens with their targets, and images among them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Tokens.
    pub tokens: Vec<i32>,
    /// Target of each token; -100: none.
    pub targets: Vec<i32>,
    /// Starts of the samples, and the number of tokens.
    pub bounds: Vec<usize>,
    /// Ranges of tokens and the embeddings in their place.
    pub images: Vec<(Range<usize>, Tensor)>,
}

/// What a step gives beside the gradients of the stages.
#[derive(Debug)]
pub struct Outcome {
    /// Mean of the cross-entropies.
    pub loss: f64,
    /// Logits `[T, V]`.
    pub logits: Tensor,
    /// Gradients of the images' embeddings.
    pub image_grads: Vec<Tensor>,
    /// Bytes that each stage's tape held.
    pub saved: Vec<usize>,
}

/// A stage's part of a forward.
struct Forward {
    tape: Tape,
    input: Vec<VarId>,
    output: Var,
    logits: Option<Tensor>,
}

fn forward(
    g: Graph<'_>,
    model: &Qwen3,
    batch: &Batch,
    hidden: Option<Tensor>,
    dtype: DType,
    ctx: &Context,
) -> Result<Forward> {
    let mut g = g;
    let bounds: Arc<[usize]> = batch.bounds.clone().into();
    let (cos, sin) = model.rope(ctx, &positions(&bounds), dtype)?;
    let (cos, sin) = (g.constant(cos), g.constant(sin));
    let mut input = Vec::new();
    let hidden = match hidden {
        Some(hidden) => {
            let leaf = g.leaf(hidden);
            input.extend(leaf.id());
            leaf
        }
        None => {
            let tokens = g.constant(Tensor::from_slice(ctx, &batch.tokens, &[batch.tokens.len()])?);
            let images: Vec<(Range<usize>, Var)> =
                batch.images.iter().map(|(range, image)| (range.clone(), g.leaf(image.clone()))).collect();
            input.extend(images.iter().filter_map(|(_, image)| image.id()));
            model.embed(&mut g, &tokens, &images)?
        }
    };
    let hidden = model.layers(&mut g, &hidden, (&cos, &sin), &bounds)?;
    if !model.stage().last {
        return Ok(Forward { tape: g.finish(), input, output: hidden, logits: None });
    }
    let normed = model.final_norm(&mut g, &hidden)?;
    drop(hidden);
    let targets = g.constant(Tensor::from_slice(ctx, &batch.targets, &[batch.targets.len()])?);
    let count = batch.targets.iter().filter(|t| **t != -100).count();
    let loss = model.loss(&mut g, &normed, &targets, 1.0 / count as f64)?;
    let logits = model.logits(&mut g, &normed)?.into_tensor();
    Ok(Forward { tape: g.finish(), input, output: loss, logits: Some(logits) })
}

/// Bytes that a planning pass predicts for the tape of each stage.
///
/// # Errors
/// Those of the model.
pub fn plan(ctx: &Context, stages: &[StageModule], batch: &Batch, dtype: DType) -> Result<Vec<usize>> {
    let mut hidden = None;
    let mut saved = Vec::new();
    for stage in stages {
        let parameters = stage.parameters.shape_only();
        let g = Graph::planning(ctx, &parameters);
        let done = forward(g, &stage.model, batch, hidden, dtype, ctx)?;
        saved.push(done.tape.saved_bytes());
        hidden = Some(done.output.into_tensor());
    }
    Ok(saved)
}

/// Forward through all stages, then backward through them; the gradients are those of this step alone.
///
/// # Errors
/// Those of the model.
pub fn step(
    ctx: &Context,
    stages: &mut [StageModule],
    batch: &Batch,
    dtype: DType,
    mode: Mode,
) -> Result<Outcome> {
    let mut hidden = None;
    let mut done = Vec::new();
    for stage in stages.iter() {
        let g = Graph::recording(ctx, &stage.parameters);
        let forward = forward(g, &stage.model, batch, hidden, dtype, ctx)?;
        hidden = Some(forward.output.tensor().clone());
        done.push(forward);
    }
    let last = done.last_mut().context("there are no stages")?;
    let logits = last.logits.take().context("the last stage gave no logits")?;
    let loss = to_f64(ctx, last.output.tensor())?[0];
    let saved = done.iter().map(|f| f.tape.saved_bytes()).collect();
    let mut grads = vec![float_tensor(ctx, &[1.0], &[1], dtype.accumulator())?];
    for (stage, forward) in stages.iter_mut().zip(done).rev() {
        let grad = grads.pop().context("a stage gave no gradient of its input")?;
        let seed = (forward.output.id().context("the output has no gradient")?, grad);
        stage.gradients.begin_step();
        let mut propagated =
            forward.tape.backward(ctx, &stage.parameters, [seed], &mut stage.gradients, mode)?;
        let deferred = std::mem::take(&mut propagated.deferred);
        deferred.run(ctx, &stage.parameters, &mut stage.gradients)?;
        stage.gradients.finish_step()?;
        grads = forward
            .input
            .iter()
            .map(|id| propagated.take(*id).context("no gradient of an input"))
            .collect::<Result<_>>()?;
    }
    Ok(Outcome { loss, logits, image_grads: grads, saved })
}
