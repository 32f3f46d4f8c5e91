//! Adding a weight on the CPU.

use crate::numeric::Float;
use crate::rows::{map, rows_per_block};
use bigmac_runtime::Context;

/// `y = x + w`, with `w` again and again.
pub(super) fn forward<T: Float>(ctx: &Context, x: &[T], w: &[T], y: &mut [T]) {
    let rows = rows_per_block(w.len());
    ctx.threads().chunks_mut(y, rows * w.len(), |block, y| {
        let x = &x[block * rows * w.len()..][..y.len()];
        for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
            map([x, w], y, |[x, w]| x + w);
        }
    });
}
