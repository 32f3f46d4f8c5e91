//! Products with weights, as a model's layers run them: forward, gradient of the input, gradient of the weight.

use super::super::case::Case;
use super::super::operator::{Checked, OperatorSubject, Part, Pass};
use super::Family;
use bigmac_kernels::linear::Linear;
use bigmac_runtime::DType;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "linear",
    dims: &["tokens", "in", "out"],
    real: &[
        ("square", &[8192, 8192, 8192]),
        ("Qwen3-1.7B q", &[8192, 2048, 2048]),
        ("Qwen3-1.7B k, v", &[8192, 2048, 1024]),
        ("Qwen3-1.7B gate, up", &[8192, 2048, 6144]),
        ("Qwen3-1.7B down", &[8192, 6144, 2048]),
        ("Qwen3-8B q", &[8192, 4096, 4096]),
        ("Qwen3-8B k, v", &[8192, 4096, 1024]),
        ("Qwen3-8B gate, up", &[8192, 4096, 12288]),
        ("Qwen3-8B down", &[8192, 12288, 4096]),
        ("Qwen3-30B-A3B q", &[8192, 2048, 4096]),
        ("Qwen3-30B-A3B expert", &[512, 2048, 768]),
        ("SigLIP so400m q, k, v", &[11664, 1152, 1152]),
        ("SigLIP so400m fc1", &[11664, 1152, 4304]),
        ("SigLIP so400m fc2", &[11664, 4304, 1152]),
        ("MMDiT 2B mlp", &[4096, 1536, 6144]),
        ("MMDiT 20B q", &[4608, 3072, 3072]),
        ("MMDiT 20B mlp in", &[4608, 3072, 12288]),
        ("MMDiT 20B mlp out", &[4608, 12288, 3072]),
        ("decoding", &[8, 4096, 12288]),
    ],
    small: &[&[5, 24, 40], &[130, 72, 136]],
    cases,
};

/// Rows, or columns, that are computed on the CPU as well.
const COMPARED: usize = 48;

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[tokens, width, out] = extents else { return Ok(Vec::new()) };
    // The last ones: what a ragged tile or a large offset does wrong shows there.
    let last = |len: usize| (len.saturating_sub(COMPARED), len.min(COMPARED));
    let (row, rows) = last(tokens);
    let (column, columns) = last(width);
    let of_rows = || Part {
        operator: Arc::new(Linear { bias: false }),
        inputs: vec![Some((0, row, rows))],
        weights: vec![None],
        output: Some((0, row, rows)),
    };
    // A column of the weight's gradient depends on a column of the input alone.
    let of_columns = Part {
        operator: Arc::new(Linear { bias: false }),
        inputs: vec![Some((1, column, columns))],
        weights: vec![Some((1, column, columns))],
        output: None,
    };
    let case = |name, pass, part| {
        let subject = OperatorSubject::new(Linear { bias: false }, pass, dtype, &[&[tokens, width]])
            .weights(&[&[out, width]])
            .checked(Checked::Part(part));
        Case::new("linear", name, dtype, subject).flops(2.0 * (tokens * width) as f64 * out as f64)
    };
    Ok(vec![
        case("forward", Pass::Forward, of_rows()),
        case("dgrad", Pass::Inputs, of_rows()),
        case("wgrad", Pass::Weights, of_columns),
    ])
}
