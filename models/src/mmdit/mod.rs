//! The diffusion generator: an MMDiT in the layout of diffusers' `QwenImageTransformer2DModel`, trained by flow
//! matching.
//!
//! One item is one picture to be drawn: its noised latents [patches, channels], the time of its noise, and the hidden
//! states [tokens, width] of the text it is drawn from. The model predicts the flow's velocity at every patch.

mod block;
pub mod codec;
mod config;
pub mod flow;
mod modulation;
mod rope;
pub mod sampler;
mod time;

pub use config::MmditConfig;
pub use rope::{Grid, RopeTableCache, RopeTables, Rotations};
pub use time::time_features;

use crate::init::{ParameterSpec, find};
use crate::layers::Dense;
use crate::stage::{Stage, at_end};
use crate::weights::{Format, TRANSFORMERS};
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{
    concat::Concat,
    mean_squared_error::MeanSquaredError,
    rms_norm::RmsNorm,
    silu::Silu,
    view::{Narrow, Reshape},
};
use bigmac_runtime::{Error, Result};
use block::Block;
use modulation::{final_norm, zero_dense};

const OP: &str = "mmdit";

/// A generator's directory as this project writes it, `config.json` beside `model.safetensors`; names are diffusers'.
pub const FORMAT: Format = Format { file: TRANSFORMERS, ..DIFFUSERS };
/// The directory that diffusers writes and reads, whose weight file is named otherwise.
pub const DIFFUSERS: Format =
    Format { file: "diffusion_pytorch_model.safetensors", read: own_name, write: str::to_owned };

fn own_name(name: &str) -> Option<String> {
    Some(name.to_owned())
}

const IMAGE_IN: &str = "img_in";
const TEXT_NORM: &str = "txt_norm.weight";
const TEXT_IN: &str = "txt_in";
const TIME_IN: &str = "time_text_embed.timestep_embedder.linear_1";
const TIME_OUT: &str = "time_text_embed.timestep_embedder.linear_2";
const FINAL_MODULATION: &str = "norm_out.linear";
const IMAGE_OUT: &str = "proj_out";

/// The residual streams between two blocks, and what modulates every block.
#[derive(Clone, Debug)]
pub struct Streams {
    /// [patches, D].
    pub image: Var,
    /// [tokens, D].
    pub text: Var,
    /// SiLU of the time's embedding, `[D]`.
    pub time: Var,
}

impl Streams {
    /// What a stage hands to the next, [tokens + patches + 1, D]: text, image, time. So the embedding of the time is
    /// computed, and learned, by the first stage alone.
    pub fn pack(&self, g: &mut Graph<'_>) -> Result<Var> {
        let row = Reshape::new(&[1, self.time.shape()[0]]);
        let time = g.apply(row, &[&self.time], &[])?;
        g.apply(Concat { dim: 0 }, &[&self.text, &self.image, &time], &[])
    }

    /// The streams in what the stage before has packed, where the text has `tokens` tokens.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer rows than text, time and one patch have; those of the operators.
    pub fn unpack(g: &mut Graph<'_>, packed: &Var, tokens: usize) -> Result<Streams> {
        let patches = match *packed.shape() {
            [rows, _] if rows > tokens + 1 => rows - tokens - 1,
            _ => {
                let wanted = format!("[{tokens} tokens + patches + 1, width], at least one patch");
                return Err(Error::shape(OP, packed.shape(), wanted));
            }
        };
        let mut rows = |start, count| g.apply(Narrow { dim: 0, start, len: count }, &[packed], &[]);
        let (text, image) = (rows(0, tokens)?, rows(tokens, patches)?);
        let time = rows(tokens + patches, 1)?;
        let vector = Reshape::new(&[time.shape()[1]]);
        Ok(Streams { image, text, time: g.apply(vector, &[&time], &[])? })
    }
}

/// What only the first stage has.
#[derive(Clone, Copy, Debug)]
struct Embedder {
    image: Dense,
    text_norm: ParamId,
    text: Dense,
    time_in: Dense,
    time_out: Dense,
}

/// What only the last stage has.
#[derive(Clone, Copy, Debug)]
struct Head {
    modulation: Dense,
    image: Dense,
}

/// `QwenImageTransformer2DModel`, or one stage of it: the numbers of its parameters in a [`Parameters`].
#[derive(Clone, Debug)]
pub struct Mmdit {
    config: MmditConfig,
    stage: Stage,
    embedder: Option<Embedder>,
    blocks: Vec<Block>,
    head: Option<Head>,
}

impl Mmdit {
    /// The parameters of a model of that configuration, under diffusers' names. Modulations and the last layer start at
    /// zero. What nothing reads (the text stream after the last block) is frozen.
    pub fn parameters(config: &MmditConfig) -> Vec<ParameterSpec> {
        Self::stage_parameters(config, &Stage::whole(config.num_layers))
    }

    /// Those of a stage.
    pub fn stage_parameters(config: &MmditConfig, stage: &Stage) -> Vec<ParameterSpec> {
        let (dim, cond) = (config.inner_dim(), config.joint_attention_dim);
        let dense = |prefix: &str, outputs, inputs| Dense::parameters(prefix, outputs, inputs, true);
        let mut specs = Vec::new();
        if stage.first {
            specs.extend(dense(IMAGE_IN, dim, config.in_channels));
            specs.push(ParameterSpec::ones(TEXT_NORM, &[cond]));
            specs.extend(dense(TEXT_IN, dim, cond));
            specs.extend(dense(TIME_IN, dim, MmditConfig::TIME_FEATURES));
            specs.extend(dense(TIME_OUT, dim, dim));
        }
        specs.extend(stage.layers.clone().flat_map(|i| Block::parameters(config, i)));
        if stage.last {
            specs.extend(zero_dense(FINAL_MODULATION, 2 * dim, dim));
            specs.extend(zero_dense(IMAGE_OUT, config.prediction_dim(), dim));
        }
        specs
    }

    /// The model over parameters that hold at least those of [`Mmdit::parameters`].
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration does not fit or a parameter is missing, [`Error::Shape`] when one has
    /// another shape than the configuration says.
    pub fn new(config: &MmditConfig, parameters: &Parameters) -> Result<Self> {
        Self::of_stage(config, Stage::whole(config.num_layers), parameters)
    }

    /// One stage, over parameters that hold at least those of [`Mmdit::stage_parameters`].
    pub fn of_stage(config: &MmditConfig, stage: Stage, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        for spec in Self::stage_parameters(config, &stage) {
            let given = parameters.get(find(parameters, &spec.name)?).shape();
            if given != spec.shape {
                let wanted = format!("{:?} for '{}' by the configuration", spec.shape, spec.name);
                return Err(Error::shape(OP, given, wanted));
            }
        }
        let dense = |prefix: &str| Dense::find(parameters, prefix, true);
        let embedder = || -> Result<Embedder> {
            Ok(Embedder {
                image: dense(IMAGE_IN)?,
                text_norm: find(parameters, TEXT_NORM)?,
                text: dense(TEXT_IN)?,
                time_in: dense(TIME_IN)?,
                time_out: dense(TIME_OUT)?,
            })
        };
        let head = || -> Result<Head> {
            Ok(Head { modulation: dense(FINAL_MODULATION)?, image: dense(IMAGE_OUT)? })
        };
        let blocks = stage.layers.clone();
        Ok(Mmdit {
            embedder: stage.first.then(embedder).transpose()?,
            blocks: blocks.map(|i| Block::new(config, i, parameters)).collect::<Result<_>>()?,
            head: stage.last.then(head).transpose()?,
            config: config.clone(),
            stage,
        })
    }

    /// The part of the model that this is.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The configuration.
    pub fn config(&self) -> &MmditConfig {
        &self.config
    }

    /// The velocity [patches, patch_size^2 x out_channels] at noised `latents` [patches, in_channels], for the features
    /// of their time ([`time_features`], `[256]`) and `cond` [tokens, joint_attention_dim], any number of tokens from
    /// 1.
    ///
    /// `rotations` are those of the picture's grid and as many tokens.
    ///
    /// # Errors
    /// [`Error::Shape`] and those of the operators.
    pub fn forward(
        &self,
        g: &mut Graph<'_>,
        latents: &Var,
        time: &Var,
        cond: &Var,
        rotations: &Rotations,
    ) -> Result<Var> {
        let streams = self.embed(g, latents, time, cond)?;
        let streams = self.run_blocks(g, streams, rotations)?;
        self.predict(g, &streams)
    }

    /// What comes before the blocks (first stage).
    ///
    /// # Errors
    /// As [`Mmdit::forward`]; [`Error::Argument`] on another stage.
    pub fn embed(&self, g: &mut Graph<'_>, latents: &Var, time: &Var, cond: &Var) -> Result<Streams> {
        let rows = |v: &Var, width: usize| matches!(*v.shape(), [n, w] if n > 0 && w == width);
        let (channels, width) = (self.config.in_channels, self.config.joint_attention_dim);
        if !rows(latents, channels) || !rows(cond, width) || time.shape() != [MmditConfig::TIME_FEATURES] {
            return Err(Error::shape(
                OP,
                (latents.shape(), time.shape(), cond.shape()),
                format!(
                    "latents [patches, {channels}], time features [256], text [tokens, {width}], at least one patch and token"
                ),
            ));
        }
        let embedder = at_end(self.embedder, OP, "first", &self.stage)?;
        let text = g.apply(RmsNorm { eps: MmditConfig::EPS }, &[cond], &[embedder.text_norm])?;
        let mut time = embedder.time_in.forward(g, time)?;
        time = g.apply(Silu, &[&time], &[])?;
        time = embedder.time_out.forward(g, &time)?;
        Ok(Streams {
            image: embedder.image.forward(g, latents)?,
            text: embedder.text.forward(g, &text)?,
            time: g.apply(Silu, &[&time], &[])?,
        })
    }

    /// The stage's blocks, in order.
    pub fn run_blocks(&self, g: &mut Graph<'_>, streams: Streams, rotations: &Rotations) -> Result<Streams> {
        self.blocks.iter().try_fold(streams, |streams, block| block.forward(g, &streams, rotations))
    }

    /// What comes after the blocks (last stage).
    ///
    /// # Errors
    /// As [`Mmdit::forward`]; [`Error::Argument`] on another stage.
    pub fn predict(&self, g: &mut Graph<'_>, streams: &Streams) -> Result<Var> {
        let head = at_end(self.head, OP, "last", &self.stage)?;
        let modulation = head.modulation.forward(g, &streams.time)?;
        let image = final_norm(g, &streams.image, &modulation)?;
        head.image.forward(g, &image)
    }

    /// `scale` x the sum of squared differences between `prediction` and `target`, `[1]` in the accumulator type.
    ///
    /// # Errors
    /// Those of the operator.
    pub fn loss(g: &mut Graph<'_>, prediction: &Var, target: &Var, scale: f64) -> Result<Var> {
        g.apply(MeanSquaredError { scale }, &[prediction, target], &[])
    }
}

#[cfg(test)]
mod tests;
