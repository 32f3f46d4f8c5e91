//! Rows that are picked, replaced and joined: images among text, text beside images.

use super::super::case::Case;
use super::super::operator::{OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::{
    concat::Concat, gather_rows::GatherRows, patchify::Patchify, replace_rows::ReplaceRows,
};
use bigmac_runtime::DType;
use serde_json::json;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "rows",
    dims: &["rows", "width"],
    real: &[("Qwen3-1.7B", &[8192, 2048]), ("Qwen3-8B", &[8192, 4096]), ("MMDiT 20B", &[16_896, 3072])],
    small: &[&[8, 40], &[33, 129]],
    cases,
};

/// Pixels to a side of a patch, and patches to a side of a picture: SigLIP so400m's.
const PATCH: usize = 14;

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[tokens, width] = extents else { return Ok(Vec::new()) };
    // Half of the rows, those of the pictures between runs of text.
    let rows: Arc<[usize]> = (0..tokens).filter(|row| row / 4 % 2 == 1).collect();
    let picked = [rows.len(), width];
    let size = PATCH * tokens.isqrt().max(1);
    let (forward, backward) = (Pass::Forward, Pass::Backward);
    let gather = |pass| {
        // Rows that are not picked are not read; in the backward they are written.
        let written = if pass == Pass::Forward { rows.len() } else { tokens };
        let bytes = ((rows.len() + written) * width * dtype.size()) as f64;
        OperatorSubject::new(GatherRows { rows: rows.clone() }, pass, dtype, &[extents]).bytes(bytes)
    };
    let replace = |pass| {
        let bytes = (2 * tokens * width * dtype.size()) as f64;
        OperatorSubject::new(ReplaceRows { rows: rows.clone() }, pass, dtype, &[extents, &picked])
            .bytes(bytes)
    };
    let concat = OperatorSubject::new(Concat { dim: 0 }, forward, dtype, &[extents, &picked]);
    let patches = OperatorSubject::new(Patchify { patch: PATCH }, forward, dtype, &[&[3, size, size]]);
    Ok(vec![
        Case::new("gather_rows", "forward", dtype, gather(forward)),
        Case::new("gather_rows", "backward", dtype, gather(backward)),
        Case::new("replace_rows", "forward", dtype, replace(forward)),
        Case::new("concat", "forward", dtype, concat),
        Case { peer: Some(json!({ "patch": PATCH })), ..Case::new("patchify", "forward", dtype, patches) },
    ])
}
