//! Rows of a table, and their gradients.

use super::super::case::Case;
use super::super::operator::{Kind, OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::embedding::Embedding;
use bigmac_runtime::DType;

pub(super) const FAMILY: Family = Family {
    name: "embedding",
    dims: &["tokens", "words", "width"],
    real: &[("Qwen3-1.7B", &[8192, 151_936, 2048]), ("Qwen3-8B", &[8192, 151_936, 4096])],
    small: &[&[9, 50, 24], &[70, 31, 129]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[tokens, words, width] = extents else { return Ok(Vec::new()) };
    let below = u32::try_from(words)?;
    // Rows that are picked; the gradients of theirs are read and written, and the others are not touched.
    let rows = (tokens * width) as f64;
    let ids = (tokens * DType::I32.size()) as f64;
    let activations = rows * dtype.size() as f64;
    let subject = |pass, bytes| {
        let subject = OperatorSubject::new(Embedding, pass, dtype, &[&[tokens]]).kind(0, Kind::Ids(below));
        subject.weights(&[&[words, width]]).bytes(ids + bytes)
    };
    let gradients = 2.0 * rows * DType::F32.size() as f64;
    Ok(vec![
        Case::new("embedding", "forward", dtype, subject(Pass::Forward, 2.0 * activations)),
        Case::new("embedding", "wgrad", dtype, subject(Pass::Weights, activations + gradients)),
    ])
}
