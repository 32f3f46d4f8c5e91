//! What a diffusion transformer's conditioning does to its rows.

use super::super::case::Case;
use super::super::operator::{OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::{ada_layer_norm::AdaLayerNorm, gated_add::GatedAdd};
use bigmac_runtime::DType;

pub(super) const FAMILY: Family = Family {
    name: "modulation",
    dims: &["rows", "width"],
    real: &[
        ("MMDiT 2B", &[4608, 1536]),
        ("MMDiT 20B", &[4608, 3072]),
        ("MMDiT 20B, 2048 pixels", &[16_896, 3072]),
    ],
    small: &[&[7, 40], &[33, 129]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[_, width] = extents else { return Ok(Vec::new()) };
    let width = [width];
    let passes = [("forward", Pass::Forward), ("backward", Pass::Backward)].into_iter();
    let of_pass = |(name, pass)| {
        let norm = AdaLayerNorm { eps: 1e-6 };
        let norm = OperatorSubject::new(norm, pass, dtype, &[extents, &width, &width]);
        let add = OperatorSubject::new(GatedAdd, pass, dtype, &[extents, &width, extents]);
        [Case::new("ada_layer_norm", name, dtype, norm), Case::new("gated_add", name, dtype, add)]
    };
    Ok(passes.flat_map(of_pass).collect())
}
