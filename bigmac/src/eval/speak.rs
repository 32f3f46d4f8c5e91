//! From pictures to text: prompts with images, continued by the LLM.

use crate::data::{Dataset, ImageItem, PictureLimits, load_image_item};
use crate::model::{ModelShape, RankModules};
use crate::train::TrainError;
use bigmac_autograd::Graph;
use bigmac_kernels::cast::cast;
use bigmac_models::generate::{Options, Prompt, Sampling, generate};
use bigmac_runtime::{Context, Tensor};

/// Prompts that are continued side by side: enough to fill matrix products, few enough to stay in cache.
const BATCH: usize = 32;

/// The embeddings of one picture or tile, [tokens, width].
///
/// # Errors
/// [`TrainError::Data`] when the picture cannot be read.
pub fn encode(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    item: &ImageItem,
    limits: &PictureLimits,
) -> Result<Tensor, TrainError> {
    let pixels = Tensor::from_slice(ctx, &load_image_item(item, limits)?, &[3, item.size, item.size])?;
    let encoder = modules.encoder.whole()?;
    let mut graph = Graph::inference(ctx, &encoder.params);
    let pixels = graph.constant(cast(ctx, &pixels, shape.dtype)?);
    Ok(encoder.net.forward(&mut graph, &pixels)?.into_tensor())
}

/// A sample's beginning, up to the first token that is learned, and the learned tokens that follow.
///
/// # Errors
/// As [`encode`].
pub fn prompt(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    dataset: &Dataset,
    sample: usize,
) -> Result<(Prompt, Vec<i32>), TrainError> {
    let expanded = dataset.expand(sample);
    let first = expanded.targets.iter().position(|&t| t >= 0).unwrap_or(expanded.tokens.len() - 1);
    let eos = dataset.tokenizer.specials().eos as i32;
    let wanted = expanded.targets[first..].iter().copied().take_while(|&t| t >= 0 && t != eos).collect();
    let size = dataset.layout.image_size;
    let mut images = Vec::new();
    for image in expanded.images.iter().filter(|i| i.rows.end <= first + 1) {
        let (picture, tile, rows) = (image.picture.clone(), image.tile, image.rows.clone());
        let item = ImageItem { picture, tile, size, rows: rows.clone(), sample: 0 };
        images.push((rows, encode(ctx, modules, shape, &item, &dataset.layout.limits)?));
    }
    let tokens = expanded.tokens[..=first].iter().map(|&t| t as i32).collect();
    Ok((Prompt { tokens, images }, wanted))
}

/// Continues prompts with the most probable tokens until `stop`.
///
/// # Errors
/// Those of the model.
pub fn answer(
    ctx: &Context,
    modules: &RankModules,
    prompts: &[Prompt],
    max_tokens: usize,
    stop: u32,
) -> Result<Vec<Vec<i32>>, TrainError> {
    let options = Options { max_tokens, stop: vec![stop as i32], sampling: Sampling::Greedy };
    let llm = modules.llm.whole()?;
    let mut answers = Vec::with_capacity(prompts.len());
    for batch in prompts.chunks(BATCH) {
        answers.extend(generate(ctx, &llm.net, &llm.params, batch, &options)?);
    }
    Ok(answers)
}
