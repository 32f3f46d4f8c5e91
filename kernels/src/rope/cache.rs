//! Tables of angles that are computed once.

use super::tables::rope_tables;
use crate::gather_rows::gather_both;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Device, Error, Result, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// What tables are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    dims: Vec<usize>,
    /// The bits of theta.
    theta: u64,
    dtype: DType,
    device: Device,
}

/// The tables of [`rope_tables`] for the positions 0, 1, 2 and so on, the same on all axes, as far as they were asked
/// for: a caller that asks for some of them gets copies of their rows, with the same bits as if they had been computed
/// for it.
///
/// Tables are counted under the scope [`TABLES`](scopes::TABLES). They grow to the next power of two when a later
/// position is asked for. A rank keeps one for all that it computes.
#[derive(Debug, Default)]
pub struct RopeCache {
    tables: Mutex<HashMap<Key, (Tensor, Tensor)>>,
}

impl RopeCache {
    /// Tables cos and sin, each `[positions.len(), D / 2]`, of tokens at those positions, in tensors of their own.
    ///
    /// # Errors
    /// As [`rope_tables`].
    pub fn gather(
        &self,
        ctx: &Context,
        positions: &[usize],
        (dims, theta): (&[usize], f64),
        dtype: DType,
    ) -> Result<(Tensor, Tensor)> {
        let end = positions.iter().max().map_or(0, |last| last + 1);
        let (cos, sin) = self.up_to(ctx, end, (dims, theta), dtype)?;
        gather_both(ctx, (&cos, &sin), positions)
    }

    /// Views of tables cos and sin, each `[positions.len(), D / 2]`, of tokens at consecutive positions.
    ///
    /// # Errors
    /// As [`rope_tables`].
    pub fn range(
        &self,
        ctx: &Context,
        positions: Range<usize>,
        (dims, theta): (&[usize], f64),
        dtype: DType,
    ) -> Result<(Tensor, Tensor)> {
        let (cos, sin) = self.up_to(ctx, positions.end, (dims, theta), dtype)?;
        let rows = |table: &Tensor| table.narrow(0, positions.start, positions.len());
        Ok((rows(&cos)?, rows(&sin)?))
    }

    /// Tables of at least the first `end` positions.
    fn up_to(
        &self,
        ctx: &Context,
        end: usize,
        (dims, theta): (&[usize], f64),
        dtype: DType,
    ) -> Result<(Tensor, Tensor)> {
        let key = Key { dims: dims.to_vec(), theta: theta.to_bits(), dtype, device: ctx.device() };
        // An entry is whole or not there, so a panic elsewhere does not matter.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cos, sin)) = tables.get(&key).filter(|(cos, _)| cos.shape()[0] >= end) {
            return Ok((cos.clone(), sin.clone()));
        }
        let len = end.checked_next_power_of_two().ok_or_else(|| {
            Error::argument("rope_tables", format!("position {end} is too large for a table"))
        })?;
        let positions: Vec<f64> = (0..len).map(|position| position as f64).collect();
        let axes = vec![&positions[..]; dims.len()];
        let made = rope_tables(&ctx.in_scope(scopes::TABLES), &axes, dims, theta, dtype)?;
        tables.insert(key, made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{gpus, to_f64};

    #[test]
    fn rows_are_those_that_would_be_computed_and_tables_grow_by_powers_of_two() {
        let cpu = Context::cpu(0, 1).unwrap();
        for gpu in std::iter::once(None).chain(gpus().unwrap().iter().map(Some)) {
            let ctx = Context::on(0, 1, gpu).unwrap();
            let cache = RopeCache::default();
            let tables = ctx.memory().scope(scopes::TABLES);
            for dtype in [DType::F32, DType::F64] {
                if dtype == DType::F64 && ctx.is_gpu() {
                    continue;
                }
                let before = tables.current();
                for (dims, theta) in [(&[8][..], 1e4), (&[4, 2, 2], 1e4), (&[8], 1e6)] {
                    for positions in [&[0, 1, 2, 0, 1][..], &[4, 0], &[], &[2, 2, 2]] {
                        let given = cache.gather(&ctx, positions, (dims, theta), dtype).unwrap();
                        let exact: Vec<f64> = positions.iter().map(|&p| p as f64).collect();
                        let axes = vec![&exact[..]; dims.len()];
                        let wanted = rope_tables(&cpu, &axes, dims, theta, dtype).unwrap();
                        for (given, wanted) in [(given.0, wanted.0), (given.1, wanted.1)] {
                            assert_eq!(given.shape(), [positions.len(), 4]);
                            assert_eq!(to_f64(&ctx, &given).unwrap(), to_f64(&cpu, &wanted).unwrap());
                            assert!(given.is_whole(), "a row holds no more than itself");
                        }
                    }
                    let (cos, _) = cache.range(&ctx, 3..5, (dims, theta), dtype).unwrap();
                    let (alone, _) = cache.gather(&ctx, &[3, 4], (dims, theta), dtype).unwrap();
                    assert_eq!(to_f64(&ctx, &cos).unwrap(), to_f64(&ctx, &alone).unwrap());
                }
                // Three tables of 8 positions, two of four angles each.
                assert_eq!(tables.current() - before, 3 * 2 * 8 * 4 * dtype.size());
            }
        }
    }
}
