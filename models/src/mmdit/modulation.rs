//! Modulation: how a picture's time moves and scales the streams.

use super::MmditConfig;
use crate::init::ParameterSpec;
use bigmac_autograd::{Graph, Var};
use bigmac_kernels::{ada_layer_norm::AdaLayerNorm, gated_add::GatedAdd, view::Narrow};
use bigmac_runtime::Result;

/// The parameters of a linear layer that starts at zero: modulations and the last layer, so that every block starts as
/// the identity and the prediction as zero (adaLN-Zero, Peebles and Xie, arXiv 2212.09748, section 3.2).
pub(super) fn zero_dense(prefix: &str, outputs: usize, inputs: usize) -> Vec<ParameterSpec> {
    vec![
        ParameterSpec::zeros(format!("{prefix}.weight"), &[outputs, inputs]),
        ParameterSpec::zeros(format!("{prefix}.bias"), &[outputs]),
    ]
}

/// Part `i` of a vector cut in `parts` of equal length.
fn part(g: &mut Graph<'_>, vector: &Var, parts: usize, i: usize) -> Result<Var> {
    let len = vector.shape()[0] / parts;
    g.apply(Narrow { dim: 0, start: i * len, len }, &[vector], &[])
}

/// Layer norm of `x` [T, D] without parameters, then `x * (1 + scale) + shift` with those parts of `modulation` [parts
/// * D].
fn modulated(
    g: &mut Graph<'_>,
    x: &Var,
    modulation: &Var,
    parts: usize,
    shift: usize,
    scale: usize,
) -> Result<Var> {
    let shift = part(g, modulation, parts, shift)?;
    let scale = part(g, modulation, parts, scale)?;
    g.apply(AdaLayerNorm { eps: MmditConfig::EPS }, &[x, &shift, &scale], &[])
}

/// A stream's modulation in one block: (shift, scale, gate) before attention, then the same before the hidden layer.
#[derive(Debug)]
pub(super) struct BlockModulation<'a>(pub &'a Var);

impl BlockModulation<'_> {
    const PARTS: usize = 6;

    /// The norm before attention (`half` 0) or before the hidden layer (`half` 1).
    pub fn norm(&self, g: &mut Graph<'_>, x: &Var, half: usize) -> Result<Var> {
        modulated(g, x, self.0, Self::PARTS, 3 * half, 3 * half + 1)
    }

    /// `x + gate * y`.
    pub fn add(&self, g: &mut Graph<'_>, x: &Var, y: &Var, half: usize) -> Result<Var> {
        let gate = part(g, self.0, Self::PARTS, 3 * half + 2)?;
        g.apply(GatedAdd, &[x, &gate, y], &[])
    }
}

/// The norm before the last layer; diffusers keeps its scale before its shift.
pub(super) fn final_norm(g: &mut Graph<'_>, x: &Var, modulation: &Var) -> Result<Var> {
    modulated(g, x, modulation, 2, 1, 0)
}
