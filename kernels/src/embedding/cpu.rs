//! Table look-up on the CPU; ids were checked.

use crate::numeric::Float;
use crate::rows::{accumulate, rows_per_block};
use bigmac_runtime::Context;

/// `y[t] = table[ids[t]]`.
pub(super) fn gather<T: Float>(ctx: &Context, ids: &[i32], table: &[T], width: usize, y: &mut [T]) {
    if width == 0 {
        return;
    }
    let rows = rows_per_block(width);
    ctx.threads().chunks_mut(y, rows * width, |block, y| {
        for (y, &id) in y.chunks_exact_mut(width).zip(&ids[block * rows..]) {
            y.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
}

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
