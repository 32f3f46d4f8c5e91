//! The vision encoder: SigLIP's (`SiglipVisionModel` in transformers).
//!
//! One item is one picture or one tile of a picture; it is encoded by itself, so that any rank can do it.
//!
//! Sources: Zhai et al., *Sigmoid Loss for Language Image Pre-Training*, arXiv 2303.15343; Dosovitskiy et al., *An Image
//! is Worth 16x16 Words*, arXiv 2010.11929.

mod config;
mod layer;

pub use config::SiglipVisionConfig;
pub(crate) use config::{gelu_is_tanh, gelu_name};

use crate::init::{Init, ParameterSpec, find};
use crate::layers::{AffineNorm, Dense};
use crate::names::{ENCODER, SIGLIP};
use crate::weights::Checkpoint;
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{AddWeight, Concat, Patchify};
use bigmac_runtime::{Error, Result};
use layer::Layer;
use std::path::Path;

/// Which of the encoder's states are its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Features {
    /// The states after that many layers (0: the embedded patches), side by side, without the last norm: `hidden_states[i]`
    /// of transformers, which LLaVA reads.
    Hidden(Vec<usize>),
    /// The normed states behind the last layer: `last_hidden_state`.
    Last,
}

impl Features {
    /// Layers that have to be computed.
    fn depth(&self, config: &SiglipVisionConfig) -> usize {
        match self {
            Features::Hidden(layers) => layers.iter().copied().max().unwrap_or(0),
            Features::Last => config.num_hidden_layers,
        }
    }

    /// Width of the output.
    pub fn width(&self, config: &SiglipVisionConfig) -> usize {
        match self {
            Features::Hidden(layers) => layers.len() * config.hidden_size,
            Features::Last => config.hidden_size,
        }
    }
}

/// The encoder: which of a module's parameters are what.
#[derive(Clone, Debug)]
pub struct SiglipVisionModel {
    config: SiglipVisionConfig,
    features: Features,
    patches: Dense,
    positions: ParamId,
    layers: Vec<Layer>,
    post_norm: AffineNorm,
}

impl SiglipVisionModel {
    /// The parameters, in the order of transformers. Those that `features` doesn't depend on (layers above, the last
    /// norm, the pooling head) are frozen.
    pub fn parameters(config: &SiglipVisionConfig, features: &Features) -> Vec<ParameterSpec> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let mut specs = Dense::parameters(
            &name("embeddings.patch_embedding"),
            width,
            config.num_channels * patch * patch,
            true,
        );
        specs[0].file_shape = vec![width, config.num_channels, patch, patch];
        let init = Init::Normal { std: (width as f64).powf(-0.5) };
        specs.push(ParameterSpec::new(
            name("embeddings.position_embedding.weight"),
            &[config.tokens(), width],
            init,
        ));
        let depth = features.depth(config);
        for index in 0..config.num_hidden_layers {
            let layer = Layer::parameters(config, index);
            specs.extend(layer.into_iter().map(|s| if index < depth { s } else { s.frozen() }));
        }
        let norm = AffineNorm::parameters(&name("post_layernorm"), width);
        specs.extend(norm.into_iter().map(|s| if *features == Features::Last { s } else { s.frozen() }));
        if config.vision_use_head {
            specs.extend(head(config).into_iter().map(ParameterSpec::frozen));
        }
        specs
    }

    /// The encoder over parameters that hold at least those of [`SiglipVisionModel::parameters`].
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration or `features` don't fit, or a parameter is missing.
    pub fn new(config: &SiglipVisionConfig, features: Features, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        let depth = features.depth(config);
        if depth > config.num_hidden_layers || features.width(config) == 0 {
            let message = format!("got {features:?} of a model with {} layers", config.num_hidden_layers);
            return Err(Error::argument("vision features", message));
        }
        Ok(SiglipVisionModel {
            patches: Dense::find(parameters, &name("embeddings.patch_embedding"), true)?,
            positions: find(parameters, &name("embeddings.position_embedding.weight"))?,
            layers: (0..depth).map(|i| Layer::new(config, i, parameters)).collect::<Result<_>>()?,
            post_norm: AffineNorm::find(parameters, &name("post_layernorm"), config.layer_norm_eps)?,
            config: config.clone(),
            features,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &SiglipVisionConfig {
        &self.config
    }

    /// Encodes the pixels `[C, image_size, image_size]` of one item, normalised as the model was trained (SigLIP: to
    /// [-1, 1]), into `[tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for pixels of another shape; the operators'.
    pub fn forward(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        let config = &self.config;
        let shape = [config.num_channels, config.image_size, config.image_size];
        if pixels.shape() != shape {
            return Err(Error::shape("vision encoder", pixels.shape(), format!("pixels {shape:?}")));
        }
        let patches = g.apply(Patchify { patch: config.patch_size }, &[pixels], &[])?;
        let embedded = self.patches.forward(g, &patches)?;
        drop(patches);
        let mut x = g.apply(AddWeight, &[&embedded], &[self.positions])?;
        drop(embedded);
        let mut kept = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            if matches!(&self.features, Features::Hidden(wanted) if wanted.contains(&index)) {
                kept.push((index, x.clone()));
            }
            x = layer.forward(g, config, &x)?;
        }
        let Features::Hidden(wanted) = &self.features else { return self.post_norm.forward(g, &x) };
        if wanted.len() == 1 {
            return Ok(x);
        }
        kept.push((self.layers.len(), x));
        let state = |wanted: usize| kept.iter().find(|(index, _)| *index == wanted).map(|(_, state)| state);
        let parts: Vec<&Var> = wanted.iter().filter_map(|&index| state(index)).collect();
        g.apply(Concat { dim: 1 }, &parts, &[])
    }
}

/// Opens a directory of the vision model (or of a whole SigLIP model, whose text half is passed over) and checks that it
/// holds every parameter of its configuration, and no other.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub fn open(directory: &Path) -> Result<(SiglipVisionConfig, Checkpoint)> {
    let checkpoint = Checkpoint::open(directory, SIGLIP)?;
    let config = checkpoint.config(SiglipVisionConfig::from_json)?;
    checkpoint.expect(&SiglipVisionModel::parameters(&config, &Features::Last), &[])?;
    Ok((config, checkpoint))
}

/// The name of a part in a checkpoint.
fn name(part: &str) -> String {
    format!("{ENCODER}{part}")
}

/// The attention-pooling head (`SiglipMultiheadAttentionPoolingHead`), which checkpoints have and LLaVA doesn't read.
fn head(config: &SiglipVisionConfig) -> Vec<ParameterSpec> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let std = (width as f64).powf(-0.5);
    let mut specs = vec![
        ParameterSpec::new(name("head.probe"), &[1, 1, width], Init::Normal { std }),
        ParameterSpec::matrix(name("head.attention.in_proj_weight"), 3 * width, width),
        ParameterSpec::zeros(name("head.attention.in_proj_bias"), &[3 * width]),
    ];
    specs.extend(Dense::parameters(&name("head.attention.out_proj"), width, width, true));
    specs.extend(AffineNorm::parameters(&name("head.layernorm"), width));
    specs.extend(Dense::parameters(&name("head.mlp.fc1"), inner, width, true));
    specs.extend(Dense::parameters(&name("head.mlp.fc2"), width, inner, true));
    specs
}
