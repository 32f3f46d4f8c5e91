//! The projector from the encoder's width to the LLM's.

use super::config::LlavaConfig;
use crate::init::ParameterSpec;
use crate::layers::Dense;
use crate::names::PROJECTOR;
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::gelu::Gelu;
use bigmac_runtime::Result;

/// `linear_2(gelu(linear_1(x)))`: `LlavaMultiModalProjector` in transformers.
#[derive(Clone, Debug)]
pub struct Projector {
    linear_1: Dense,
    gelu: Gelu,
    linear_2: Dense,
}

impl Projector {
    /// Its parameters.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] for a feature layer that does not exist.
    pub fn parameters(config: &LlavaConfig) -> Result<Vec<ParameterSpec>> {
        let (from, to) = (config.features()?.width(&config.vision), config.text.hidden_size);
        let bias = config.multimodal_projector_bias;
        let mut specs = Dense::parameters(&format!("{PROJECTOR}linear_1"), to, from, bias);
        specs.extend(Dense::parameters(&format!("{PROJECTOR}linear_2"), to, to, bias));
        Ok(specs)
    }

    /// The projector over these parameters.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(config: &LlavaConfig, parameters: &Parameters) -> Result<Self> {
        let bias = config.multimodal_projector_bias;
        Ok(Projector {
            linear_1: Dense::find(parameters, &format!("{PROJECTOR}linear_1"), bias)?,
            gelu: config.projector_hidden_act.gelu(),
            linear_2: Dense::find(parameters, &format!("{PROJECTOR}linear_2"), bias)?,
        })
    }

    /// `[tokens, features]` to `[tokens, LLM width]`.
    pub fn forward(&self, g: &mut Graph<'_>, features: &Var) -> Result<Var> {
        let inner = self.linear_1.forward(g, features)?;
        let inner = g.apply(self.gelu, &[&inner], &[])?;
        self.linear_2.forward(g, &inner)
    }
}
