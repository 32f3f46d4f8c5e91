//! Layers that more than one model is made of.

use crate::init::{ParameterSpec, find};
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{layer_norm::LayerNorm, linear::Linear};
use bigmac_runtime::Result;

/// A linear layer `y = x W^T (+ b)`, named as `torch.nn.Linear`: `PREFIX.weight` and `PREFIX.bias`.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Dense {
    /// The parameters of a layer from `inputs` to `outputs` features.
    pub fn parameters(prefix: &str, outputs: usize, inputs: usize, bias: bool) -> Vec<ParameterSpec> {
        Self::with_bias(ParameterSpec::matrix(format!("{prefix}.weight"), outputs, inputs), prefix, bias)
    }

    /// As [`Dense::parameters`], for the last layer of a residual branch in a network of `branches` of them.
    pub fn residual(
        prefix: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
        branches: usize,
    ) -> Vec<ParameterSpec> {
        let weight = ParameterSpec::residual(format!("{prefix}.weight"), outputs, inputs, branches);
        Self::with_bias(weight, prefix, bias)
    }

    fn with_bias(weight: ParameterSpec, prefix: &str, bias: bool) -> Vec<ParameterSpec> {
        let outputs = weight.shape[0];
        let bias = bias.then(|| ParameterSpec::zeros(format!("{prefix}.bias"), &[outputs]));
        [weight].into_iter().chain(bias).collect()
    }

    /// The layer whose parameters have that prefix.
    pub fn find(parameters: &Parameters, prefix: &str, bias: bool) -> Result<Self> {
        Ok(Dense {
            weight: find(parameters, &format!("{prefix}.weight"))?,
            bias: bias.then(|| find(parameters, &format!("{prefix}.bias"))).transpose()?,
        })
    }

    /// From `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
        match self.bias {
            Some(bias) => g.apply(Linear { bias: true }, &[x], &[self.weight, bias]),
            None => g.apply(Linear { bias: false }, &[x], &[self.weight]),
        }
    }
}

/// A layer norm with weight and bias, named as `torch.nn.LayerNorm`.
#[derive(Clone, Copy, Debug)]
pub struct AffineNorm {
    weight: ParamId,
    bias: ParamId,
    eps: f64,
}

impl AffineNorm {
    /// The parameters of a norm over `width` features.
    pub fn parameters(prefix: &str, width: usize) -> Vec<ParameterSpec> {
        vec![
            ParameterSpec::ones(format!("{prefix}.weight"), &[width]),
            ParameterSpec::zeros(format!("{prefix}.bias"), &[width]),
        ]
    }

    /// The norm whose parameters have that prefix.
    pub fn find(parameters: &Parameters, prefix: &str, eps: f64) -> Result<Self> {
        Ok(AffineNorm {
            weight: find(parameters, &format!("{prefix}.weight"))?,
            bias: find(parameters, &format!("{prefix}.bias"))?,
            eps,
        })
    }

    /// Over the last dimension.
    pub fn forward(&self, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
        g.apply(LayerNorm { eps: self.eps }, &[x], &[self.weight, self.bias])
    }
}
