//! Changes of dtype.

use super::super::case::Case;
use super::super::operator::{OperatorSubject, Pass};
use super::Family;
use bigmac_kernels::cast::Cast;
use bigmac_runtime::DType;

pub(super) const FAMILY: Family = Family {
    name: "cast",
    dims: &["elements"],
    real: &[("100 million", &[100_000_000])],
    small: &[&[1001]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let (op, to) = match dtype {
        DType::BF16 => ("cast to f32", DType::F32),
        _ => ("cast to bf16", DType::BF16),
    };
    let subject = OperatorSubject::new(Cast { to }, Pass::Forward, dtype, &[extents]);
    Ok(vec![Case::new(op, "forward", dtype, subject)])
}
