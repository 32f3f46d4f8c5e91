//! One decoder layer.

use super::config::Qwen3Config;
use crate::init::{ParameterSpec, find};
use crate::layers::Dense;
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{add::Add, rms_norm::RmsNorm, rope::Rope, swiglu::SwiGlu, view::Reshape};
use bigmac_runtime::Result;

/// `x + o(attention(norm(x)))`, then `y + down(silu(gate(norm(y))) * up(norm(y)))`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    input_norm: ParamId,
    q: Dense,
    k: Dense,
    v: Dense,
    o: Dense,
    /// Weights of the norms of query and key heads.
    qk_norm: Option<(ParamId, ParamId)>,
    output_norm: ParamId,
    gate: Dense,
    up: Dense,
    down: Dense,
}

/// What turns q `[T, Hq, D]`, k and v `[T, Hkv, D]` into `[T, Hq, D]`: attention over the sequences at hand, or over a
/// cache too.
pub(super) type Attend<'a> = &'a mut dyn FnMut(&mut Graph<'_>, Var, Var, Var) -> Result<Var>;

impl Layer {
    /// The parameters of layer `index`, in the order of transformers.
    pub fn parameters(config: &Qwen3Config, index: usize) -> Vec<ParameterSpec> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let branches = 2 * config.num_hidden_layers;
        let (bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        let mut specs = vec![ParameterSpec::ones(name("input_layernorm.weight"), &[width])];
        specs.extend(Dense::parameters(&name("self_attn.q_proj"), queries, width, bias));
        specs.extend(Dense::parameters(&name("self_attn.k_proj"), keys, width, bias));
        specs.extend(Dense::parameters(&name("self_attn.v_proj"), keys, width, bias));
        specs.extend(Dense::residual(&name("self_attn.o_proj"), width, queries, bias, branches));
        if config.qk_norm {
            specs.push(ParameterSpec::ones(name("self_attn.q_norm.weight"), &[config.head_dim]));
            specs.push(ParameterSpec::ones(name("self_attn.k_norm.weight"), &[config.head_dim]));
        }
        specs.push(ParameterSpec::ones(name("post_attention_layernorm.weight"), &[width]));
        specs.extend(Dense::parameters(&name("mlp.gate_proj"), inner, width, mlp_bias));
        specs.extend(Dense::parameters(&name("mlp.up_proj"), inner, width, mlp_bias));
        specs.extend(Dense::residual(&name("mlp.down_proj"), width, inner, mlp_bias, branches));
        specs
    }

    /// Layer `index` over these parameters.
    pub fn new(config: &Qwen3Config, index: usize, parameters: &Parameters) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let weight = |part: &str| find(parameters, &name(part));
        let attention = |part: &str| Dense::find(parameters, &name(part), config.attention_bias);
        let mlp = |part: &str| Dense::find(parameters, &name(part), config.mlp_bias);
        let qk_norm = match config.qk_norm {
            true => Some((weight("self_attn.q_norm.weight")?, weight("self_attn.k_norm.weight")?)),
            false => None,
        };
        Ok(Layer {
            input_norm: weight("input_layernorm.weight")?,
            q: attention("self_attn.q_proj")?,
            k: attention("self_attn.k_proj")?,
            v: attention("self_attn.v_proj")?,
            o: attention("self_attn.o_proj")?,
            qk_norm,
            output_norm: weight("post_attention_layernorm.weight")?,
            gate: mlp("mlp.gate_proj")?,
            up: mlp("mlp.up_proj")?,
            down: mlp("mlp.down_proj")?,
        })
    }

    /// From hidden states `[T, width]` to those of the next layer.
    pub fn forward(
        &self,
        g: &mut Graph<'_>,
        config: &Qwen3Config,
        x: &Var,
        rope: (&Var, &Var),
        attend: Attend<'_>,
    ) -> Result<Var> {
        let eps = config.rms_norm_eps;
        let normed = g.apply(RmsNorm { eps }, &[x], &[self.input_norm])?;
        let (q_norm, k_norm) = (self.qk_norm.map(|n| n.0), self.qk_norm.map(|n| n.1));
        let q = self.heads(g, config, &self.q, &normed)?;
        let q = self.position(g, config, q, q_norm, rope)?;
        let k = self.heads(g, config, &self.k, &normed)?;
        let k = self.position(g, config, k, k_norm, rope)?;
        let v = self.heads(g, config, &self.v, &normed)?;
        drop(normed);
        let attended = attend(g, q, k, v)?;
        let flat = [x.shape()[0], config.num_attention_heads * config.head_dim];
        let attended = g.apply(Reshape::new(&flat), &[&attended], &[])?;
        let branch = self.o.forward(g, &attended)?;
        drop(attended);
        let x = g.apply(Add, &[x, &branch], &[])?;
        let normed = g.apply(RmsNorm { eps }, &[&x], &[self.output_norm])?;
        let gate = self.gate.forward(g, &normed)?;
        let up = self.up.forward(g, &normed)?;
        let inner = g.apply(SwiGlu, &[&gate, &up], &[])?;
        let branch = self.down.forward(g, &inner)?;
        g.apply(Add, &[&x, &branch], &[])
    }

    /// A projection of `[T, width]`, cut into heads `[T, heads, head_dim]`.
    fn heads(&self, g: &mut Graph<'_>, config: &Qwen3Config, layer: &Dense, x: &Var) -> Result<Var> {
        let y = layer.forward(g, x)?;
        let heads = y.shape()[1] / config.head_dim;
        let shape = [x.shape()[0], heads, config.head_dim];
        g.apply(Reshape::new(&shape), &[&y], &[])
    }

    /// Norm of every head where the model has it, then the rotation.
    fn position(
        &self,
        g: &mut Graph<'_>,
        config: &Qwen3Config,
        x: Var,
        norm: Option<ParamId>,
        (cos, sin): (&Var, &Var),
    ) -> Result<Var> {
        let x = match norm {
            Some(weight) => g.apply(RmsNorm { eps: config.rms_norm_eps }, &[&x], &[weight])?,
            None => x,
        };
        g.apply(Rope { interleaved: false }, &[&x, cos, sin], &[])
    }
}
