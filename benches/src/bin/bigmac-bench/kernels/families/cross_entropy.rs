//! The last product with its cross-entropy, which never holds all logits.

use super::super::case::Case;
use super::super::compare::Tolerance;
use super::super::operator::{Checked, Kind, OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::linear_cross_entropy::LinearCrossEntropy;
use bigmac_runtime::DType;

pub(super) const FAMILY: Family = Family {
    name: "cross-entropy",
    dims: &["tokens", "width", "words"],
    real: &[
        ("Qwen3-1.7B", &[8192, 2048, 151_936]),
        ("Qwen3-8B", &[8192, 4096, 151_936]),
        ("Qwen3-30B-A3B", &[4096, 2048, 151_936]),
    ],
    small: &[&[9, 24, 301], &[70, 40, 1030]],
    cases,
};

/// Tokens that the CPU computes as well.
const COMPARED: usize = 96;
/// Words to a chunk, as models have it.
const CHUNK: usize = 4096;

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[tokens, width, words] = extents else { return Ok(Vec::new()) };
    let below = u32::try_from(words)?;
    let subject = |tokens: usize, pass| {
        let operator = LinearCrossEntropy { scale: 1.0 / tokens as f64, chunk: CHUNK };
        OperatorSubject::new(operator, pass, dtype, &[&[tokens, width], &[tokens]])
            .kind(1, Kind::Ids(below))
            .weights(&[&[words, width]])
    };
    let case = |name, pass, products: f64| {
        let small = Box::new(subject(tokens.min(COMPARED), pass));
        let subject = subject(tokens, pass).checked(Checked::Instead(small));
        let product = 2.0 * (tokens * width) as f64 * words as f64;
        // Probabilities are rounded to the dtype before they are multiplied.
        let allowed = if dtype == DType::BF16 { 1e-2 } else { 5e-5 };
        Case::new("linear_cross_entropy", name, dtype, subject)
            .flops(products * product)
            .tolerance(Tolerance(allowed))
    };
    // The backward computes the logits again; that product is counted, since no way around it saves memory.
    Ok(vec![case("forward", Pass::Forward, 1.0), case("backward", Pass::Backward, 3.0)])
}
