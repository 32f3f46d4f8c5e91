//! Operators on every element by itself.

use super::super::case::Case;
use super::super::operator::{Kind, OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::{
    add::Add, add_weight::AddWeight, gelu::Gelu, mean_squared_error::MeanSquaredError, scale::Scale,
    silu::Silu, sum::Sum, swiglu::SwiGlu,
};
use bigmac_runtime::DType;
use serde_json::json;

pub(super) const FAMILY: Family = Family {
    name: "elementwise",
    dims: &["rows", "width"],
    real: &[
        ("Qwen3-1.7B mlp", &[8192, 6144]),
        ("Qwen3-8B mlp", &[8192, 12_288]),
        ("SigLIP so400m mlp", &[11_664, 4304]),
        ("MMDiT 20B mlp", &[4608, 12_288]),
    ],
    small: &[&[7, 40], &[33, 129]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[_, width] = extents else { return Ok(Vec::new()) };
    let (one, two) = ([extents], [extents, extents]);
    let passes = [("forward", Pass::Forward), ("backward", Pass::Backward)].into_iter();
    let of_pass = |(name, pass)| {
        let gelu = |tanh| OperatorSubject::new(Gelu { tanh }, pass, dtype, &one).by_rows();
        let gelu_case = |op, tanh: bool| Case {
            peer: Some(json!({ "tanh": tanh })),
            ..Case::new(op, name, dtype, gelu(tanh))
        };
        let squared = OperatorSubject::new(MeanSquaredError { scale: 1e-3 }, pass, dtype, &two);
        vec![
            gelu_case("gelu, tanh", true),
            gelu_case("gelu", false),
            Case::new("silu", name, dtype, OperatorSubject::new(Silu, pass, dtype, &one).by_rows()),
            Case::new("swiglu", name, dtype, OperatorSubject::new(SwiGlu, pass, dtype, &two).by_rows()),
            Case::new("mean_squared_error", name, dtype, squared.kind(1, Kind::Constant)),
        ]
    };
    let mut cases: Vec<Case> = passes.flat_map(of_pass).collect();
    // The backward of these is a copy, or nothing.
    let forward = Pass::Forward;
    let biased = OperatorSubject::new(AddWeight, forward, dtype, &one).by_rows().weights(&[&[width]]);
    let bias = OperatorSubject::new(AddWeight, Pass::Weights, dtype, &one).weights(&[&[width]]);
    cases.extend([
        Case::new("add", "forward", dtype, OperatorSubject::new(Add, forward, dtype, &two).by_rows()),
        Case::new(
            "scale",
            "forward",
            dtype,
            OperatorSubject::new(Scale { factor: 0.5 }, forward, dtype, &one).by_rows(),
        ),
        Case::new("sum", "forward", dtype, OperatorSubject::new(Sum, forward, dtype, &one)),
        Case::new("add_weight", "forward", dtype, biased),
        Case::new("add_weight", "wgrad", dtype, bias),
    ]);
    Ok(cases)
}
