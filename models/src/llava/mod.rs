//! Encoder, projector and LLM put together: `LlavaForConditionalGeneration` in transformers.
//!
//! Source: Liu et al., *Improved Baselines with Visual Instruction Tuning*, arXiv 2310.03744.

mod config;
pub(crate) mod projector;

pub use config::{LlavaConfig, SelectStrategy};
pub use projector::Projector;

use crate::init::ParameterSpec;
use crate::names::LLAVA;
use crate::qwen3::{Qwen3, Stage};
use crate::siglip::SiglipVisionModel;
use crate::weights::{Checkpoint, Part, write_directory};
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::view::Narrow;
use bigmac_runtime::{Context, DType, Result};
use std::path::Path;

/// The encoder module, or one stage of it: SigLIP and, on the last stage, the projector into the LLM's width.
#[derive(Clone, Debug)]
pub struct VisionEncoder {
    vision: SiglipVisionModel,
    projector: Option<Projector>,
    select: SelectStrategy,
}

impl VisionEncoder {
    /// The module's parameters.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] for a feature layer that does not exist.
    pub fn parameters(config: &LlavaConfig) -> Result<Vec<ParameterSpec>> {
        Self::stage_parameters(config, &Stage::whole(config.vision.num_hidden_layers))
    }

    /// Those of a stage.
    pub fn stage_parameters(config: &LlavaConfig, stage: &Stage) -> Result<Vec<ParameterSpec>> {
        let mut specs = SiglipVisionModel::stage_parameters(&config.vision, &config.features()?, stage);
        if stage.last {
            specs.extend(Projector::parameters(config)?);
        }
        Ok(specs)
    }

    /// The module over parameters that hold at least those of [`VisionEncoder::parameters`].
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] when the configuration does not fit or a parameter is missing.
    pub fn new(config: &LlavaConfig, parameters: &Parameters) -> Result<Self> {
        Self::of_stage(config, Stage::whole(config.vision.num_hidden_layers), parameters)
    }

    /// One stage, over parameters that hold at least those of [`VisionEncoder::stage_parameters`].
    ///
    /// # Errors
    /// As [`VisionEncoder::new`], and those of [`SiglipVisionModel::of_stage`].
    pub fn of_stage(config: &LlavaConfig, stage: Stage, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        let projector = || Projector::new(config, parameters);
        Ok(VisionEncoder {
            projector: stage.last.then(projector).transpose()?,
            vision: SiglipVisionModel::of_stage(&config.vision, config.features()?, stage, parameters)?,
            select: config.vision_feature_select_strategy,
        })
    }

    /// The part of the module that this is.
    pub fn stage(&self) -> &Stage {
        self.vision.stage()
    }

    /// The pixels `[C, H, W]` of one item to its embeddings `[image_tokens, LLM width]`.
    pub fn forward(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        let embedded = self.embed(g, pixels)?;
        self.layers(g, embedded)
    }

    /// The pixels of one item to the states before the first layer, `[patches, encoder width]` (first stage).
    pub fn embed(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        self.vision.embed(g, pixels)
    }

    /// The stage's layers: states `[patches, encoder width]` to states, or to embeddings `[image_tokens, LLM width]` on
    /// the last stage.
    pub fn layers(&self, g: &mut Graph<'_>, states: Var) -> Result<Var> {
        let features = self.vision.layers(g, states)?;
        let Some(projector) = &self.projector else { return Ok(features) };
        let features = match self.select {
            SelectStrategy::Full => features,
            SelectStrategy::Default => {
                let tokens = features.shape()[0] - 1;
                g.apply(Narrow { dim: 0, start: 1, len: tokens }, &[&features], &[])?
            }
        };
        projector.forward(g, &features)
    }
}

/// Every parameter of the uncut model under its name within encoder or LLM.
pub fn parameters(config: &LlavaConfig) -> Result<Vec<ParameterSpec>> {
    let mut specs = VisionEncoder::parameters(config)?;
    specs.extend(Qwen3::parameters(&config.text, &Stage::whole(config.text.num_hidden_layers)));
    Ok(specs)
}

/// A LLaVA directory, checked as a whole, from which ranks load the parts that they hold.
#[derive(Debug)]
pub struct LlavaCheckpoint {
    config: LlavaConfig,
    checkpoint: Checkpoint,
}

impl LlavaCheckpoint {
    /// Opens a directory and checks that it holds every parameter of the model that its `config.json` describes, and no
    /// other.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Io`], [`bigmac_runtime::Error::Format`].
    pub fn open(directory: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(directory, LLAVA)?;
        let config = checkpoint.config(LlavaConfig::from_json)?;
        checkpoint.expect(&parameters(&config)?, Qwen3::redundant(&config.text))?;
        Ok(LlavaCheckpoint { config, checkpoint })
    }

    /// The model's configuration.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// The encoder module's parameters as `dtype`.
    pub fn encoder(&self, ctx: &Context, dtype: DType) -> Result<Parameters> {
        self.checkpoint.load(ctx, &VisionEncoder::parameters(&self.config)?, dtype)
    }

    /// The parameters of one stage of the LLM as `dtype`.
    pub fn llm(&self, ctx: &Context, stage: &Stage, dtype: DType) -> Result<Parameters> {
        self.checkpoint.load(ctx, &Qwen3::parameters(&self.config.text, stage), dtype)
    }
}

/// Writes a directory that transformers reads as `LlavaForConditionalGeneration`: `config.json` and
/// `model.safetensors`.
///
/// `stages` are the LLM's stages and their parameters; together with the encoder they must be the whole model.
///
/// # Errors
/// [`bigmac_runtime::Error::Argument`] when a parameter is missing; [`bigmac_runtime::Error::Io`].
pub fn save(
    directory: &Path,
    config: &LlavaConfig,
    encoder: &Parameters,
    stages: &[(&Stage, &Parameters)],
) -> Result<()> {
    let encoder_specs = VisionEncoder::parameters(config)?;
    let stage_specs: Vec<_> =
        stages.iter().map(|(stage, _)| Qwen3::parameters(&config.text, stage)).collect();
    let mut parts = vec![Part { specs: &encoder_specs, parameters: encoder }];
    let stages = stages.iter().zip(&stage_specs);
    parts.extend(stages.map(|((_, parameters), specs)| Part { specs, parameters }));
    write_directory(directory, config.to_json(), LLAVA, &parts, &parameters(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_stages::{self, Part};
    use crate::init;
    use crate::json::OneOrMany;
    use crate::qwen3::Qwen3Config;
    use crate::siglip::SiglipVisionConfig;
    use bigmac_kernels::check::{float_tensor, random};
    use bigmac_runtime::Tensor;

    fn config(feature: i64) -> LlavaConfig {
        let vision = SiglipVisionConfig {
            hidden_size: 12,
            intermediate_size: 20,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            image_size: 6,
            patch_size: 2,
            ..SiglipVisionConfig::default()
        };
        let text = Qwen3Config { hidden_size: 10, ..Qwen3Config::default() };
        let mut config = LlavaConfig::new(vision, text, 0);
        config.vision_feature_layer = OneOrMany::One(feature);
        config
    }

    fn stages(ctx: &Context, config: &LlavaConfig, cuts: &[usize]) -> Vec<(VisionEncoder, Parameters)> {
        let layers = config.vision.num_hidden_layers;
        let bounds: Vec<usize> = [0].iter().chain(cuts).chain(&[layers]).copied().collect();
        let stage = |(i, range): (usize, &[usize])| {
            let stage = Stage { layers: range[0]..range[1], first: i == 0, last: i == cuts.len() };
            let specs = VisionEncoder::stage_parameters(config, &stage).unwrap();
            let parameters = init::random(ctx, &specs, DType::F32, 3).unwrap();
            (VisionEncoder::of_stage(config, stage, &parameters).unwrap(), parameters)
        };
        bounds.windows(2).enumerate().map(stage).collect()
    }

    #[test]
    fn stages_give_the_outputs_and_gradients_of_the_whole() {
        let ctx = Context::cpu(0, 1).unwrap();
        // LLaVA's usual feature layer leaves the last one out.
        for config in [config(-1), config(-2)] {
            let run = |cuts: &[usize]| {
                let stages = stages(&ctx, &config, cuts);
                let pixels = float_tensor(&ctx, &random(&[3, 6, 6], 5), &[3, 6, 6], DType::F32).unwrap();
                let part = |(encoder, parameters)| {
                    let (encoder, pixels): (&VisionEncoder, _) = (encoder, &pixels);
                    let forward = move |g: &mut Graph<'_>, states: Option<Var>| {
                        let states = match states {
                            Some(states) => states,
                            None => {
                                let pixels = g.constant(Tensor::clone(pixels));
                                encoder.embed(g, &pixels)?
                            }
                        };
                        encoder.layers(g, states)
                    };
                    Part { parameters, forward: Box::new(forward) }
                };
                let parts: Vec<Part<'_>> = stages.iter().map(|(e, p)| (e, p)).map(part).collect();
                let seed =
                    |shape: &[usize]| float_tensor(&ctx, &random(shape, 9), shape, DType::F32).unwrap();
                check_stages::run(&ctx, &parts, seed).unwrap()
            };
            let (output, gradients) = run(&[]);
            assert_eq!(output.shape(), [9, 10]);
            for cuts in [&[1][..], &[2], &[1, 2], &[0, 0, 1, 3]] {
                let (cut, own) = run(cuts);
                assert_eq!(cut.as_bytes().unwrap(), output.as_bytes().unwrap(), "cut at {cuts:?}");
                assert_eq!(own, gradients, "cut at {cuts:?}");
            }
        }
    }

    #[test]
    fn features_of_several_layers_are_not_cut() {
        let ctx = Context::cpu(0, 1).unwrap();
        let mut config = config(-1);
        config.vision_feature_layer = OneOrMany::Many(vec![-1, -2]);
        let stage = Stage { layers: 0..1, first: true, last: false };
        let specs = VisionEncoder::stage_parameters(&config, &stage).unwrap();
        let parameters = init::random(&ctx, &specs, DType::F32, 3).unwrap();
        let error = VisionEncoder::of_stage(&config, stage, &parameters).unwrap_err().to_string();
        assert!(error.contains("one layer's"), "{error}");
    }
}
