//! From text to pictures: hidden states of the text, and the generator's flow from noise.

use crate::data::Tokenizer;
use crate::model::{ModelShape, RankModules};
use crate::train::TrainError;
use bigmac_autograd::Graph;
use bigmac_kernels::cast::cast;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_models::mmdit::sampler::EulerSampler;
use bigmac_models::qwen3::positions;
use bigmac_runtime::{Context, DType, Error, Tensor};
use std::sync::Arc;

/// The tokens that a picture of `text` is drawn from, as in training: everything before the `draw` mark.
///
/// # Errors
/// [`Error::Argument`] when the tokenizer refuses the text.
pub fn description(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let tokens = tokenizer.encode(text).map_err(|e| Error::argument("imagine", e))?;
    Ok(std::iter::once(tokenizer.specials().bos).chain(tokens).collect())
}

/// The LLM's final hidden states of `tokens`, [tokens, width].
///
/// # Errors
/// Those of the model.
pub fn read(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    tokens: &[u32],
) -> Result<Tensor, TrainError> {
    let llm = modules.llm.whole()?;
    let mut graph = Graph::inference(ctx, &llm.params);
    let bounds: Arc<[usize]> = [0, tokens.len()].into();
    let ids: Vec<i32> = tokens.iter().map(|&t| t as i32).collect();
    let ids = graph.constant(Tensor::from_slice(ctx, &ids, &[ids.len()])?);
    let (cos, sin) = llm.net.rope(ctx, &positions(&bounds), shape.dtype)?;
    let (cos, sin) = (graph.constant(cos), graph.constant(sin));
    let hidden = llm.net.embed(&mut graph, &ids, &[])?;
    let hidden = llm.net.layers(&mut graph, &hidden, (&cos, &sin), &bounds)?;
    Ok(llm.net.final_norm(&mut graph, &hidden)?.into_tensor())
}

/// Draws one picture from `tokens`: pixels [3, side, side] in [-1, 1], by `steps` Euler steps from the noise of `key`.
///
/// # Errors
/// Those of the model.
pub fn paint(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    tokens: &[u32],
    key: SampleKey,
    steps: usize,
) -> Result<Vec<f32>, TrainError> {
    let cond = read(ctx, modules, shape, tokens)?;
    let sampler = EulerSampler { steps, ..EulerSampler::default() };
    let generator = modules.generator.whole()?;
    let grid = shape.draw_grid()?;
    let latents = sampler.draw(ctx, &generator.net, &generator.params, &cond, grid, key)?;
    let picture = shape.codec.decode(ctx, &latents, grid)?;
    Ok(cast(ctx, &picture, DType::F32)?.to_vec(ctx)?)
}
