//! The vision encoder: SigLIP's (`SiglipVisionModel` in transformers).
//!
//! One item is one picture or one tile of a picture; it is encoded by itself, so that any rank can do it, or several
//! one after the other where the model is cut into stages.
//!
//! Sources: Zhai et al., *Sigmoid Loss for Language Image Pre-Training*, arXiv 2303.15343; Dosovitskiy et al., *An
//! Image is Worth 16x16 Words*, arXiv 2010.11929.

mod config;
mod layer;

pub use config::{Activation, SiglipVisionConfig};

use crate::init::{Init, ParameterSpec, find};
use crate::layers::{AffineNorm, Dense};
use crate::names::{ENCODER, SIGLIP};
use crate::stage::{Stage, at_end};
use crate::weights::Checkpoint;
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{add_weight::AddWeight, concat::Concat, patchify::Patchify};
use bigmac_runtime::{Error, Result};
use layer::Layer;
use std::path::Path;
use std::sync::Arc;

/// Which of the encoder's states are its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Features {
    /// The states after that many layers (0: the embedded patches), side by side, without the last norm:
    /// `hidden_states[i]` of transformers, which LLaVA reads.
    Hidden(Vec<usize>),
    /// The normed states after the last layer: `last_hidden_state`.
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

/// The encoder, or one stage of it: which of a module's parameters are what.
#[derive(Clone, Debug)]
pub struct SiglipVisionModel {
    config: Arc<SiglipVisionConfig>,
    features: Features,
    stage: Stage,
    /// First stage.
    patches: Option<Dense>,
    /// First stage.
    positions: Option<ParamId>,
    layers: Vec<Layer>,
    /// Last stage.
    post_norm: Option<AffineNorm>,
}

impl SiglipVisionModel {
    /// The parameters, in the order of transformers. Those that `features` does not depend on (layers above, the last
    /// norm, the pooling head) are frozen.
    pub fn parameters(config: &SiglipVisionConfig, features: &Features) -> Vec<ParameterSpec> {
        Self::stage_parameters(config, features, &Stage::whole(config.num_hidden_layers))
    }

    /// Those of a stage: patches and positions belong to the first one, last norm and head to the last.
    pub fn stage_parameters(
        config: &SiglipVisionConfig,
        features: &Features,
        stage: &Stage,
    ) -> Vec<ParameterSpec> {
        let width = config.hidden_size;
        let mut specs = if stage.first { embeddings(config) } else { Vec::new() };
        let depth = features.depth(config);
        for index in stage.layers.clone() {
            let layer = Layer::parameters(config, index);
            specs.extend(layer.into_iter().map(|s| if index < depth { s } else { s.frozen() }));
        }
        if !stage.last {
            return specs;
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
    /// [`Error::Argument`] when the configuration or `features` do not fit, or a parameter is missing.
    pub fn new(config: &SiglipVisionConfig, features: Features, parameters: &Parameters) -> Result<Self> {
        Self::of_stage(config, features, Stage::whole(config.num_hidden_layers), parameters)
    }

    /// One stage, over parameters that hold at least those of [`SiglipVisionModel::stage_parameters`].
    ///
    /// # Errors
    /// As [`SiglipVisionModel::new`]; also for features of several layers, which an encoder that is cut does not hand
    /// on.
    pub fn of_stage(
        config: &SiglipVisionConfig,
        features: Features,
        stage: Stage,
        parameters: &Parameters,
    ) -> Result<Self> {
        config.validate()?;
        let depth = features.depth(config);
        let wrong = |message: String| Err(Error::argument("vision features", message));
        if depth > config.num_hidden_layers || features.width(config) == 0 {
            return wrong(format!("got {features:?} of a model with {} layers", config.num_hidden_layers));
        }
        if !stage.is_whole() && matches!(&features, Features::Hidden(layers) if layers.len() > 1) {
            return wrong(format!(
                "got {features:?} of an encoder that is cut into stages, expected one layer's"
            ));
        }
        let patches = || Dense::find(parameters, &name("embeddings.patch_embedding"), true);
        let positions = || find(parameters, &name("embeddings.position_embedding.weight"));
        let norm = || AffineNorm::find(parameters, &name("post_layernorm"), config.layer_norm_eps);
        let layers = stage.layers.clone().take_while(|index| *index < depth);
        Ok(SiglipVisionModel {
            patches: stage.first.then(patches).transpose()?,
            positions: stage.first.then(positions).transpose()?,
            layers: layers.map(|i| Layer::new(config, i, parameters)).collect::<Result<_>>()?,
            post_norm: stage.last.then(norm).transpose()?,
            config: Arc::new(config.clone()),
            features,
            stage,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &SiglipVisionConfig {
        &self.config
    }

    /// The part of the model that this is.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Encodes the pixels `[C, image_size, image_size]` of one item, normalised as the model was trained (SigLIP: to
    /// [-1, 1]), into `[tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for pixels of another shape; [`Error::Argument`] for a stage; the operators'.
    pub fn forward(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        let embedded = self.embed(g, pixels)?;
        self.layers(g, embedded)
    }

    /// Pixels as in [`SiglipVisionModel::forward`] to the states before the first layer, `[tokens, width]` (first
    /// stage).
    pub fn embed(&self, g: &mut Graph<'_>, pixels: &Var) -> Result<Var> {
        let config = &self.config;
        let shape = [config.num_channels, config.image_size, config.image_size];
        if pixels.shape() != shape {
            return Err(Error::shape("vision encoder", pixels.shape(), format!("pixels {shape:?}")));
        }
        let patches = g.apply(Patchify { patch: config.patch_size }, &[pixels], &[])?;
        let embedded = self.at(self.patches, "first")?.forward(g, &patches)?;
        drop(patches);
        g.apply(AddWeight, &[&embedded], &[self.at(self.positions, "first")?])
    }

    fn at<T>(&self, part: Option<T>, end: &str) -> Result<T> {
        at_end(part, "vision stage", end, &self.stage)
    }

    /// The stage's layers: states `[tokens, width]` to states, or to the features on the last stage.
    pub fn layers(&self, g: &mut Graph<'_>, states: Var) -> Result<Var> {
        let mut x = states;
        let mut kept = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            if matches!(&self.features, Features::Hidden(wanted) if wanted.contains(&index)) {
                kept.push((index, x.clone()));
            }
            let (layer, config) = (layer.clone(), self.config.clone());
            let forward = move |g: &mut Graph<'_>, x: &[Var]| Ok(vec![layer.forward(g, &config, &x[0])?]);
            x = g.layer(&[&x], forward)?.swap_remove(0);
        }
        let wanted = match (&self.features, &self.post_norm) {
            (Features::Last, Some(norm)) => return norm.forward(g, &x),
            (Features::Hidden(wanted), _) if wanted.len() > 1 => wanted,
            _ => return Ok(x),
        };
        kept.push((self.layers.len(), x));
        let state = |wanted: usize| kept.iter().find(|(index, _)| *index == wanted).map(|(_, state)| state);
        let parts: Vec<&Var> = wanted.iter().filter_map(|&index| state(index)).collect();
        g.apply(Concat { dim: 1 }, &parts, &[])
    }
}

/// Opens a directory of the vision model (or of a whole SigLIP model, whose text half is passed over) and checks that
/// it holds every parameter of its configuration, and no other.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub fn open(directory: &Path) -> Result<(SiglipVisionConfig, Checkpoint)> {
    let checkpoint = Checkpoint::open(directory, SIGLIP)?;
    let config = checkpoint.config(SiglipVisionConfig::from_json)?;
    checkpoint.expect(&SiglipVisionModel::parameters(&config, &Features::Last), &[])?;
    Ok((config, checkpoint))
}

/// Patches and positions.
fn embeddings(config: &SiglipVisionConfig) -> Vec<ParameterSpec> {
    let (width, patch) = (config.hidden_size, config.patch_size);
    let inputs = config.num_channels * patch * patch;
    let mut specs = Dense::parameters(&name("embeddings.patch_embedding"), width, inputs, true);
    specs[0].file_shape = vec![width, config.num_channels, patch, patch];
    let init = Init::Normal { std: (width as f64).powf(-0.5) };
    let positions = name("embeddings.position_embedding.weight");
    specs.push(ParameterSpec::new(positions, &[config.tokens(), width], init));
    specs
}

/// The name of a part in a checkpoint.
fn name(part: &str) -> String {
    format!("{ENCODER}{part}")
}

/// The attention-pooling head (`SiglipMultiheadAttentionPoolingHead`), which checkpoints have and LLaVA does not read.
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
