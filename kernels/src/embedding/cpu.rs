//! The gradient of a table on the CPU; ids were checked.

use crate::numeric::Float;
use crate::rows::accumulate;
use bigmac_runtime::Context;

/// `to[ids[t]] += dy[t]`, in the order of `t`.
///
/// Each thread owns a part of the table, so a row gets its terms in the same order however many there are.
pub(super) fn scatter<T: Float>(
    ctx: &Context,
    ids: &[i32],
    dy: &[T],
    (rows, width): (usize, usize),
    to: &mut [T::Acc],
) {
    if width == 0 {
        return;
    }
    let part = rows.div_ceil(ctx.threads().count()).max(1);
    ctx.threads().chunks_mut(to, part * width, |block, to| {
        let first = block * part;
        for (dy, &id) in dy.chunks_exact(width).zip(ids) {
            if let Some(row) = (id as usize).checked_sub(first).filter(|&row| row < part) {
                accumulate(&mut to[row * width..][..width], dy);
            }
        }
    });
}
