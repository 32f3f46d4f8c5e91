//! Rotary embeddings.

use super::super::case::Case;
use super::super::operator::{Kind, OperatorSubject, Pass};
use super::Family;
use anyhow::ensure;
use bigmac_kernels::rope::Rope;
use bigmac_runtime::DType;
use serde_json::json;

pub(super) const FAMILY: Family = Family {
    name: "rope",
    dims: &["tokens", "heads", "head"],
    real: &[
        ("Qwen3-1.7B q", &[8192, 16, 128]),
        ("Qwen3-8B q", &[8192, 32, 128]),
        ("Qwen3 k", &[8192, 8, 128]),
        ("MMDiT 20B", &[16_896, 24, 128]),
    ],
    small: &[&[7, 3, 6], &[33, 4, 16]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[tokens, _, head] = extents else { return Ok(Vec::new()) };
    ensure!(head.is_multiple_of(2), "rope: got heads of {head}, expected an even number");
    let table = [tokens, head / 2];
    let case = |interleaved, pass: Pass, name: &'static str| {
        let subject = OperatorSubject::new(Rope { interleaved }, pass, dtype, &[extents, &table, &table])
            .kind(1, Kind::Table)
            .kind(2, Kind::Table);
        let op = if interleaved { "rope, interleaved" } else { "rope" };
        Case { peer: Some(json!({ "interleaved": interleaved })), ..Case::new(op, name, dtype, subject) }
    };
    Ok(vec![
        case(false, Pass::Forward, "forward"),
        case(false, Pass::Backward, "backward"),
        case(true, Pass::Forward, "forward"),
        case(true, Pass::Backward, "backward"),
    ])
}
