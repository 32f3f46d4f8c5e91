//! Encoder, projector and LLM put together: `LlavaForConditionalGeneration` in transformers.
//!
//! Source: Liu et al., *Improved Baselines with Visual Instruction Tuning*, arXiv 2310.03744.

mod config;
pub(crate) mod projector;

pub use config::{FeatureLayers, LlavaConfig, SelectStrategy};
pub use projector::Projector;

use crate::init::ParameterSpec;
use crate::names::LLAVA;
use crate::qwen3::{Qwen3, Stage};
use crate::siglip::SiglipVisionModel;
use crate::weights::{Checkpoint, Part, write_directory};
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::Narrow;
use bigmac_runtime::{Context, DType, Result};
use std::path::Path;

/// The encoder module: SigLIP and the projector into the LLM's width.
#[derive(Clone, Debug)]
pub struct VisionEncoder {
    vision: SiglipVisionModel,
    projector: Projector,
    select: SelectStrategy,
}

impl VisionEncoder {
    /// The module's parameters.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] for a feature layer that doesn't exist.
    pub fn parameters(config: &LlavaConfig) -> Result<Vec<ParameterSpec>> {
        let mut specs = SiglipVisionModel::parameters(&config.vision, &config.features()?);
        specs.extend(Projector::parameters(config)?);
        Ok(specs)
    }

    /// The module over parameters that hold at least those of [`VisionEncoder::parameters`].
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] when the configuration doesn't fit or a parameter is missing.
    pub fn new(config: &LlavaConfig, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        Ok(VisionEncoder {
            vision: SiglipVisionModel::new(&config.vision, config.features()?, parameters)?,
            projector: Projector::new(config, parameters)?,
            select: config.vision_feature_select_strategy,
        })
    }

    /// The pixels `[C, H, W]` of one item to its embeddings `[image_tokens, LLM width]`.
    ///
    /// # Errors
    /// Those of [`SiglipVisionModel::forward`].
    pub fn forward(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        let features = self.vision.forward(g, pixels)?;
        let features = match self.select {
            SelectStrategy::Full => features,
            SelectStrategy::Default => {
                let tokens = features.shape()[0] - 1;
                g.apply(Narrow::new(features.shape(), 0, 1, tokens), &[&features], &[])?
            }
        };
        self.projector.forward(g, &features)
    }
}

/// Every parameter of the uncut model under its name within encoder or LLM.
///
/// # Errors
/// As [`VisionEncoder::parameters`].
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
    /// Opens a directory and checks that it holds every parameter of the model that its `config.json` describes, and no other.
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
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn encoder(&self, ctx: &Context, dtype: DType) -> Result<Parameters> {
        self.checkpoint.load(ctx, &VisionEncoder::parameters(&self.config)?, dtype)
    }

    /// The parameters of one stage of the LLM as `dtype`.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn llm(&self, ctx: &Context, stage: &Stage, dtype: DType) -> Result<Parameters> {
        self.checkpoint.load(ctx, &Qwen3::parameters(&self.config.text, stage), dtype)
    }
}

/// Writes a directory that transformers reads as `LlavaForConditionalGeneration`: `config.json` and `model.safetensors`.
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
