//! The operators that the lab knows: one file per family, one line in [`FAMILIES`].

mod attention;
mod cast;
mod cross_entropy;
mod elementwise;
mod embedding;
mod gemm;
mod linear;
mod modulation;
mod norms;
mod optimizer;
mod rope;
mod rows;

use super::case::Case;
use anyhow::ensure;
use bigmac_runtime::DType;

/// Operators that are measured at the same shapes.
pub struct Family {
    /// The family's name.
    pub name: &'static str,
    /// Names of the extents of a shape.
    pub dims: &'static [&'static str],
    /// Shapes of real models, each with where it comes from.
    pub real: &'static [(&'static str, &'static [usize])],
    /// Shapes for a replay on the CPU, ragged where the real ones are not.
    pub small: &'static [&'static [usize]],
    /// The cases at a shape, whose number of extents was checked.
    pub cases: fn(&[usize], DType) -> anyhow::Result<Vec<Case>>,
}

/// Every family.
pub const FAMILIES: &[Family] = &[
    gemm::FAMILY,
    linear::FAMILY,
    attention::FAMILY,
    cross_entropy::FAMILY,
    norms::FAMILY,
    modulation::FAMILY,
    rope::FAMILY,
    elementwise::FAMILY,
    cast::FAMILY,
    rows::FAMILY,
    embedding::FAMILY,
    optimizer::FAMILY,
];

/// The family whose square product PyTorch's side is asked for, as the ceiling of all.
pub const LINEAR: Family = linear::FAMILY;

impl Family {
    /// The cases at one shape, each with its extents and the place they are from.
    ///
    /// # Errors
    /// When the family's shapes have another number of extents, or the extents do not fit each other.
    pub fn at(&self, extents: &[usize], place: &'static str, dtype: DType) -> anyhow::Result<Vec<Case>> {
        let empty = self.dims.iter().zip(extents).any(|(name, extent)| *extent == 0 && *name != "causal");
        ensure!(
            extents.len() == self.dims.len() && !empty,
            "{}: got the shape {extents:?}, expected {} extents above 0: {}",
            self.name,
            self.dims.len(),
            self.dims.join("x")
        );
        let cases = (self.cases)(extents, dtype)?;
        Ok(cases.into_iter().map(|case| Case { extents: extents.to_vec(), place, ..case }).collect())
    }
}
