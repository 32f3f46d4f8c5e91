//! One encoder layer.

use super::config::SiglipVisionConfig;
use super::name;
use crate::init::ParameterSpec;
use crate::layers::{AffineNorm, Dense};
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::add::Add;
use bigmac_kernels::attention::Attention;
use bigmac_kernels::view::Reshape;
use bigmac_runtime::Result;
use std::sync::Arc;

/// `x + out(attention(norm(x)))`, then `y + fc2(gelu(fc1(norm(y))))`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    norm1: AffineNorm,
    q: Dense,
    k: Dense,
    v: Dense,
    out: Dense,
    norm2: AffineNorm,
    fc1: Dense,
    fc2: Dense,
}

impl Layer {
    /// The parameters of layer `index`.
    pub fn parameters(config: &SiglipVisionConfig, index: usize) -> Vec<ParameterSpec> {
        let part = |part: &str| name(&format!("encoder.layers.{index}.{part}"));
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let branches = 2 * config.num_hidden_layers;
        let mut specs = AffineNorm::parameters(&part("layer_norm1"), width);
        specs.extend(Dense::parameters(&part("self_attn.q_proj"), width, width, true));
        specs.extend(Dense::parameters(&part("self_attn.k_proj"), width, width, true));
        specs.extend(Dense::parameters(&part("self_attn.v_proj"), width, width, true));
        specs.extend(Dense::residual(&part("self_attn.out_proj"), width, width, true, branches));
        specs.extend(AffineNorm::parameters(&part("layer_norm2"), width));
        specs.extend(Dense::parameters(&part("mlp.fc1"), inner, width, true));
        specs.extend(Dense::residual(&part("mlp.fc2"), width, inner, true, branches));
        specs
    }

    /// Layer `index` over these parameters.
    pub fn new(config: &SiglipVisionConfig, index: usize, parameters: &Parameters) -> Result<Self> {
        let part = |part: &str| name(&format!("encoder.layers.{index}.{part}"));
        let dense = |prefix: &str| Dense::find(parameters, &part(prefix), true);
        let norm = |prefix: &str| AffineNorm::find(parameters, &part(prefix), config.layer_norm_eps);
        Ok(Layer {
            norm1: norm("layer_norm1")?,
            q: dense("self_attn.q_proj")?,
            k: dense("self_attn.k_proj")?,
            v: dense("self_attn.v_proj")?,
            out: dense("self_attn.out_proj")?,
            norm2: norm("layer_norm2")?,
            fc1: dense("mlp.fc1")?,
            fc2: dense("mlp.fc2")?,
        })
    }

    /// From tokens `[T, width]` of one item to those of the next layer.
    pub fn forward(&self, g: &mut Graph<'_>, config: &SiglipVisionConfig, x: &Var) -> Result<Var> {
        let tokens = x.shape()[0];
        let head_dim = config.hidden_size / config.num_attention_heads;
        let heads = [tokens, config.num_attention_heads, head_dim];
        let normed = self.norm1.forward(g, x)?;
        let mut project = |layer: &Dense| {
            let y = layer.forward(g, &normed)?;
            g.apply(Reshape::new(&heads), &[&y], &[])
        };
        let (q, k, v) = (project(&self.q)?, project(&self.k)?, project(&self.v)?);
        drop(normed);
        let bounds: Arc<[usize]> = [0, tokens].into();
        let scale = (head_dim as f64).powf(-0.5);
        let attention =
            Attention { bounds_q: bounds.clone(), bounds_k: bounds, causal: false, scale, variant: None };
        let attended = g.apply(attention, &[&q, &k, &v], &[])?;
        drop((q, k, v));
        let attended = g.apply(Reshape::new(x.shape()), &[&attended], &[])?;
        let branch = self.out.forward(g, &attended)?;
        drop(attended);
        let x = g.apply(Add, &[x, &branch], &[])?;
        let normed = self.norm2.forward(g, &x)?;
        let inner = self.fc1.forward(g, &normed)?;
        drop(normed);
        let inner = g.apply(config.hidden_act.gelu(), &[&inner], &[])?;
        let branch = self.fc2.forward(g, &inner)?;
        g.apply(Add, &[&x, &branch], &[])
    }
}
