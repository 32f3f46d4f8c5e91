//! From pictures to text: prompts with images, continued by the LLM.

use crate::data::{Dataset, Expanded, ImageItem, PictureLimits, load_image_item};
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

/// A sample's tokens before `end` with its pictures there.
///
/// # Errors
/// As [`encode`].
pub fn beginning(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    dataset: &Dataset,
    expanded: &Expanded,
    end: usize,
) -> Result<Prompt, TrainError> {
    let size = dataset.layout.image_size;
    let mut images = Vec::new();
    for image in expanded.images.iter().filter(|image| image.rows.end <= end) {
        let (picture, tile, rows) = (image.picture.clone(), image.tile, image.rows.clone());
        let item = ImageItem { picture, tile, size, rows: rows.clone(), sample: 0 };
        images.push((rows, encode(ctx, modules, shape, &item, &dataset.layout.limits)?));
    }
    let tokens = expanded.tokens[..end].iter().map(|&t| t as i32).collect();
    Ok(Prompt { tokens, images })
}

/// A sample up to the answer that is compared, and that answer's tokens: those that are learned, without a break, up to
/// the first end of a text (as [`crate::data::Written`] has it).
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
    let eos = dataset.tokenizer.specials().eos as i32;
    let targets = &expanded.targets;
    let last = targets.iter().position(|&target| target == eos).unwrap_or(targets.len() - 1);
    let first = last - targets[..last].iter().rev().take_while(|&&target| target >= 0).count();
    let wanted = targets[first..last].to_vec();
    Ok((beginning(ctx, modules, shape, dataset, &expanded, first + 1)?, wanted))
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
