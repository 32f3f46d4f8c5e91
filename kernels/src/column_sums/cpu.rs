//! Sums over rows on the CPU.

use super::Terms;
use crate::numeric::Float;
use crate::rows::{column_sums, sum_rows};
use bigmac_runtime::{Context, Result};

/// The sums of `terms` over the rows of dy `[rows, width]`.
pub(super) fn sum<T: Float>(ctx: &Context, dy: &[T], width: usize, terms: Terms<'_>) -> Result<Vec<T::Acc>> {
    match terms {
        Terms::Values => Ok(sum_rows(ctx, dy, width)),
        Terms::Products(x) => {
            let [sums] = column_sums(ctx, [x.as_slice()?, dy], width, |_| (), |(), [x, dy]| [dy * x]);
            Ok(sums)
        }
        Terms::Scaled { x, rstd } => {
            let rstd = rstd.as_slice()?;
            let [sums] =
                column_sums(ctx, [x.as_slice()?, dy], width, |row| rstd[row], |r, [x, dy]| [dy * (x * r)]);
            Ok(sums)
        }
        Terms::Normalised { x, statistics } => {
            let statistics = statistics.as_slice::<T::Acc>()?.as_chunks::<2>().0;
            let term = |[mean, rstd]: [T::Acc; 2], [x, dy]: [T::Acc; 2]| [dy * ((x - mean) * rstd)];
            let [sums] = column_sums(ctx, [x.as_slice()?, dy], width, |row| statistics[row], term);
            Ok(sums)
        }
    }
}
