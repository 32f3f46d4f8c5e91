//! Batched products on the CPU.

use crate::product::{Matrix, Scalar, product};
use bigmac_runtime::{Context, Result};

/// One product after the other, each shared among the threads.
pub(super) fn batched<R: Scalar>(
    ctx: &Context,
    a: &[Matrix<'_, R>],
    b: &[Matrix<'_, R>],
    y: &mut [R],
) -> Result<()> {
    let len = y.len() / a.len().max(1);
    for ((&a, &b), y) in a.iter().zip(b).zip(y.chunks_exact_mut(len.max(1))) {
        product(ctx, a, b, false, y)?;
    }
    Ok(())
}
