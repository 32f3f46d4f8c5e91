//! Sums on the CPU.

use crate::numeric::Float;
use bigmac_runtime::{Context, Result};

/// Elements to a block: 64 KiB of f32, so that a block's operands stay in the second-level cache.
const BLOCK: usize = 16 * 1024;

pub(super) fn add<T: Float>(ctx: &Context, a: &[T], b: &[T], y: &mut [T]) -> Result<()> {
    ctx.threads().chunks_mut(y, BLOCK, |i, y| {
        let (a, b) = (&a[i * BLOCK..][..y.len()], &b[i * BLOCK..][..y.len()]);
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = T::from_acc(a.acc() + b.acc());
        }
    });
    Ok(())
}

pub(super) fn accumulate<T: Float>(ctx: &Context, a: &mut [T], b: &[T]) -> Result<()> {
    ctx.threads().chunks_mut(a, BLOCK, |i, a| {
        let b = &b[i * BLOCK..][..a.len()];
        for (a, b) in a.iter_mut().zip(b) {
            *a = T::from_acc(a.acc() + b.acc());
        }
    });
    Ok(())
}
