//! Attention over packed sequences of equal lengths.

use super::super::case::{Case, Variant};
use super::super::compare::Tolerance;
use super::super::operator::{Checked, OperatorSubject, Part, Pass};
use super::Family;
use anyhow::ensure;
use bigmac_kernels::{
    Operator,
    attention::{Attention, variants},
};
use bigmac_runtime::DType;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "attention",
    dims: &["sequences", "tokens", "heads", "kv_heads", "head", "causal"],
    real: &[
        ("Qwen3-1.7B", &[1, 4096, 16, 8, 128, 1]),
        ("Qwen3-1.7B, packed", &[8, 1024, 16, 8, 128, 1]),
        ("Qwen3-8B", &[1, 8192, 32, 8, 128, 1]),
        ("Qwen3-8B", &[1, 16384, 32, 8, 128, 1]),
        ("Qwen3-30B-A3B", &[2, 4096, 32, 4, 128, 1]),
        ("SigLIP so400m", &[16, 729, 16, 16, 72, 0]),
        ("ViT, head 64", &[4, 4096, 16, 16, 64, 0]),
        ("MMDiT 2B", &[1, 4608, 24, 24, 64, 0]),
        ("MMDiT 20B", &[1, 4608, 24, 24, 128, 0]),
        ("MMDiT 20B, 2048 pixels", &[1, 16896, 24, 24, 128, 0]),
    ],
    small: &[&[2, 37, 4, 2, 16, 1], &[1, 70, 2, 2, 24, 0], &[1, 66, 2, 1, 64, 1]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[sequences, tokens, heads, kv_heads, head, causal] = extents else { return Ok(Vec::new()) };
    ensure!(
        causal < 2 && heads.is_multiple_of(kv_heads),
        "attention: got {heads} heads over {kv_heads} and causal = {causal}, expected a multiple, and 0 or 1"
    );
    let bounds: Arc<[usize]> = (0..=sequences).map(|i| i * tokens).collect();
    let operator = Attention {
        bounds_q: bounds.clone(),
        bounds_k: bounds,
        causal: causal == 1,
        scale: (head as f64).sqrt().recip(),
        variant: None,
    };
    let total = sequences * tokens;
    // Heads do not know of each other: the last key head and the queries that read it are compared.
    let group = heads / kv_heads;
    let (query, key) = (Some((1, heads - group, group)), Some((1, kv_heads - 1, 1)));
    let part = || Part {
        operator: Arc::new(operator.clone()),
        inputs: vec![query, key, key],
        weights: Vec::new(),
        output: query,
    };
    // Pairs of a query and a key that it sees.
    let pairs = sequences as f64 * (tokens as f64).powi(2) * if causal == 1 { 0.5 } else { 1.0 };
    let product = 2.0 * pairs * (heads * head) as f64;
    let case = |name, pass, products: f64| {
        let (q, k) = ([total, heads, head], [total, kv_heads, head]);
        let subject = OperatorSubject::new(operator.clone(), pass, dtype, &[&q, &k, &k]);
        let numbered = variants(dtype, head).iter().enumerate().map(|(number, variant)| {
            let tiled: Arc<dyn Operator> = Arc::new(Attention { variant: Some(number), ..operator.clone() });
            (Variant { number: number as u32, name: variant.to_string() }, tiled)
        });
        let subject = subject.alternatives(numbered);
        // Probabilities and their gradients are rounded to the dtype between two products.
        let allowed = if dtype == DType::BF16 { 1e-2 } else { 5e-5 };
        Case::new("attention", name, dtype, subject.checked(Checked::Part(part())))
            .flops(products * product)
            .tolerance(Tolerance(allowed))
    };
    Ok(vec![case("forward", Pass::Forward, 2.0), case("backward", Pass::Backward, 5.0)])
}
