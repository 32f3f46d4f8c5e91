//! The diffusion generator: an MMDiT in the layout of diffusers' `QwenImageTransformer2DModel`, trained by flow matching.
//!
//! One item is one picture to be drawn: its noised latents [patches, channels], the time of its noise, and the hidden states
//! [tokens, width] of the text it is drawn from. The model predicts the flow's velocity at every patch.

mod block;
pub mod codec;
mod config;
pub mod flow;
mod modulation;
mod rope;
pub mod sampler;
mod time;

pub use config::MmditConfig;
pub use rope::{Grid, RopeTables, Rotations};
pub use time::time_features;

use crate::init::{ParameterSpec, find};
use crate::layers::Dense;
use crate::weights::{Format, TRANSFORMERS};
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{MeanSquaredError, RmsNorm, Silu};
use bigmac_runtime::{Error, Result};
use block::Block;
use modulation::{final_norm, zero_dense};
use std::ops::Range;

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

/// The residual streams between two blocks, and what modulates every block: what a stage hands to the next.
#[derive(Clone, Debug)]
pub struct Streams {
    /// [patches, D].
    pub image: Var,
    /// [tokens, D].
    pub text: Var,
    /// SiLU of the time's embedding, `[D]`.
    pub time: Var,
}

/// `QwenImageTransformer2DModel`: the numbers of its parameters in a [`Parameters`].
#[derive(Clone, Debug)]
pub struct Mmdit {
    config: MmditConfig,
    image_in: Dense,
    text_norm: ParamId,
    text_in: Dense,
    time_in: Dense,
    time_out: Dense,
    blocks: Vec<Block>,
    final_modulation: Dense,
    image_out: Dense,
}

impl Mmdit {
    /// The parameters of a model of that configuration, under diffusers' names. Modulations and the last layer start at zero.
    pub fn parameters(config: &MmditConfig) -> Vec<ParameterSpec> {
        let (dim, cond) = (config.inner_dim(), config.joint_attention_dim);
        let dense = |prefix: &str, outputs, inputs| Dense::parameters(prefix, outputs, inputs, true);
        let mut specs = dense(IMAGE_IN, dim, config.in_channels);
        specs.push(ParameterSpec::ones(TEXT_NORM, &[cond]));
        specs.extend(dense(TEXT_IN, dim, cond));
        specs.extend(dense(TIME_IN, dim, MmditConfig::TIME_FEATURES));
        specs.extend(dense(TIME_OUT, dim, dim));
        specs.extend((0..config.num_layers).flat_map(|i| Block::parameters(config, i)));
        specs.extend(zero_dense(FINAL_MODULATION, 2 * dim, dim));
        specs.extend(zero_dense(IMAGE_OUT, config.prediction_dim(), dim));
        specs
    }

    /// The model over parameters that hold at least those of [`Mmdit::parameters`].
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration doesn't fit or a parameter is missing, [`Error::Shape`] when one has another
    /// shape than the configuration says.
    pub fn new(config: &MmditConfig, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        for spec in Self::parameters(config) {
            let given = parameters.get(find(parameters, &spec.name)?).shape();
            if given != spec.shape {
                let wanted = format!("{:?} for '{}' by the configuration", spec.shape, spec.name);
                return Err(Error::shape(OP, given, wanted));
            }
        }
        let dense = |prefix: &str| Dense::find(parameters, prefix, true);
        Ok(Mmdit {
            image_in: dense(IMAGE_IN)?,
            text_norm: find(parameters, TEXT_NORM)?,
            text_in: dense(TEXT_IN)?,
            time_in: dense(TIME_IN)?,
            time_out: dense(TIME_OUT)?,
            blocks: (0..config.num_layers)
                .map(|i| Block::new(config, i, parameters))
                .collect::<Result<_>>()?,
            final_modulation: dense(FINAL_MODULATION)?,
            image_out: dense(IMAGE_OUT)?,
            config: config.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &MmditConfig {
        &self.config
    }

    /// The velocity [patches, patch_size^2 x out_channels] at noised `latents` [patches, in_channels], for the features of their time
    /// ([`time_features`], `[256]`) and `cond` [tokens, joint_attention_dim], any number of tokens from 1.
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
        let streams = self.run_blocks(g, 0..self.blocks.len(), streams, rotations)?;
        self.predict(g, &streams)
    }

    /// What comes before the blocks.
    ///
    /// # Errors
    /// As [`Mmdit::forward`].
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
        let text = g.apply(RmsNorm { eps: MmditConfig::EPS }, &[cond], &[self.text_norm])?;
        let mut time = self.time_in.forward(g, time)?;
        time = g.apply(Silu, &[&time], &[])?;
        time = self.time_out.forward(g, &time)?;
        Ok(Streams {
            image: self.image_in.forward(g, latents)?,
            text: self.text_in.forward(g, &text)?,
            time: g.apply(Silu, &[&time], &[])?,
        })
    }

    /// The blocks of that range, in order.
    ///
    /// # Errors
    /// [`Error::Argument`] for a range beyond the model; else as [`Mmdit::forward`].
    pub fn run_blocks(
        &self,
        g: &mut Graph<'_>,
        range: Range<usize>,
        streams: Streams,
        rotations: &Rotations,
    ) -> Result<Streams> {
        let blocks = self.blocks.get(range.clone()).ok_or_else(|| {
            Error::argument(
                OP,
                format!("got blocks {range:?}, wanted a range within 0..{}", self.blocks.len()),
            )
        })?;
        blocks.iter().try_fold(streams, |streams, block| block.forward(g, &streams, rotations))
    }

    /// What comes after the blocks.
    ///
    /// # Errors
    /// As [`Mmdit::forward`].
    pub fn predict(&self, g: &mut Graph<'_>, streams: &Streams) -> Result<Var> {
        let modulation = self.final_modulation.forward(g, &streams.time)?;
        let image = final_norm(g, &streams.image, &modulation)?;
        self.image_out.forward(g, &image)
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
