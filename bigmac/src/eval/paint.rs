//! From a text, and pictures in it, to pictures: its hidden states, and the generator's flow from noise.

use crate::data::Tokenizer;
use crate::model::{ModelShape, RankModules};
use crate::train::TrainError;
use bigmac_autograd::Graph;
use bigmac_kernels::cast::cast;
use bigmac_models::generate::Prompt;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_models::mmdit::sampler::EulerSampler;
use bigmac_models::qwen3::positions;
use bigmac_runtime::{Context, DType, Error, Tensor};
use std::sync::Arc;

/// What a picture of `text` is drawn from, as in training: everything before the `draw` mark.
///
/// # Errors
/// [`Error::Argument`] when the tokenizer refuses the text.
pub fn description(tokenizer: &Tokenizer, text: &str) -> Result<Prompt, TrainError> {
    let tokens = tokenizer.encode(text).map_err(|e| Error::argument("imagine", e))?;
    let tokens = std::iter::once(tokenizer.specials().bos).chain(tokens).map(|t| t as i32).collect();
    Ok(Prompt { tokens, images: Vec::new() })
}

/// The LLM's final hidden states of `prompt`, [tokens, width].
///
/// # Errors
/// Those of the model.
pub fn read(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    prompt: &Prompt,
) -> Result<Tensor, TrainError> {
    let llm = modules.llm.whole()?;
    let mut graph = Graph::inference(ctx, &llm.params);
    let tokens = &prompt.tokens;
    let bounds: Arc<[usize]> = [0, tokens.len()].into();
    let ids = graph.constant(Tensor::from_slice(ctx, tokens, &[tokens.len()])?);
    let images: Vec<_> =
        prompt.images.iter().map(|(rows, image)| (rows.clone(), graph.constant(image.clone()))).collect();
    let (cos, sin) = llm.net.rope(ctx, &positions(&bounds), shape.dtype)?;
    let (cos, sin) = (graph.constant(cos), graph.constant(sin));
    let hidden = llm.net.embed(&mut graph, &ids, &images)?;
    let hidden = llm.net.layers(&mut graph, &hidden, (&cos, &sin), &bounds)?;
    Ok(llm.net.final_norm(&mut graph, &hidden)?.into_tensor())
}

/// Draws one picture from `prompt`: pixels [3, side, side] in [-1, 1], by `steps` Euler steps from the noise of `key`.
///
/// # Errors
/// Those of the model.
pub fn paint(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    prompt: &Prompt,
    key: SampleKey,
    steps: usize,
) -> Result<Vec<f32>, TrainError> {
    let cond = read(ctx, modules, shape, prompt)?;
    let sampler = EulerSampler { steps, ..EulerSampler::default() };
    let generator = modules.generator.whole()?;
    let grid = shape.draw_grid()?;
    let latents = sampler.draw(ctx, &generator.net, &generator.params, &cond, grid, key)?;
    let picture = shape.codec.decode(ctx, &latents, grid)?;
    Ok(cast(ctx, &picture, DType::F32)?.to_vec(ctx)?)
}
