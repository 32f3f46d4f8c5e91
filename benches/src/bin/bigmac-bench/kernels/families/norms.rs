//! Norms over rows.

use super::super::case::Case;
use super::super::operator::{OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::{Operator, layer_norm::LayerNorm, rms_norm::RmsNorm};
use bigmac_runtime::DType;

pub(super) const FAMILY: Family = Family {
    name: "norms",
    dims: &["rows", "width"],
    real: &[
        ("Qwen3-1.7B", &[8192, 2048]),
        ("Qwen3-8B", &[8192, 4096]),
        ("Qwen3 q, heads of 128", &[262_144, 128]),
        ("SigLIP so400m", &[11_664, 1152]),
        ("MMDiT 20B", &[16_896, 3072]),
    ],
    small: &[&[7, 40], &[33, 129]],
    cases,
};

const EPS: f64 = 1e-6;

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[_, width] = extents else { return Ok(Vec::new()) };
    fn both(
        op: &'static str,
        make: impl Fn(Pass) -> OperatorSubject,
        dtype: DType,
    ) -> impl Iterator<Item = Case> {
        [("forward", Pass::Forward), ("backward", Pass::Backward)]
            .map(|(name, pass)| Case::new(op, name, dtype, make(pass)))
            .into_iter()
    }
    fn subject(
        operator: impl Operator + 'static,
        pass: Pass,
        extents: &[usize],
        dtype: DType,
    ) -> OperatorSubject {
        let subject = OperatorSubject::new(operator, pass, dtype, &[extents]);
        // The weight's gradient is a sum over all rows.
        if pass == Pass::Forward { subject.by_rows() } else { subject }
    }
    let rms = |pass| subject(RmsNorm { eps: EPS }, pass, extents, dtype).weights(&[&[width]]);
    let layer = |pass| subject(LayerNorm { eps: EPS }, pass, extents, dtype).weights(&[&[width], &[width]]);
    Ok(both("rms_norm", rms, dtype).chain(both("layer_norm", layer, dtype)).collect())
}
