//! Adding up the gradients of gathered rows on the CPU.

use crate::numeric::{Float, Real};
use crate::rows::accumulate;

/// `dx[rows[i]] += dy[i]` in the order of `i`; `dx` holds zeros.
pub(super) fn scatter<T: Float>(rows: &[usize], dy: &[T], width: usize, dx: &mut [T]) {
    let target = |row: usize| row * width..(row + 1) * width;
    if rows.is_sorted_by(|a, b| a < b) {
        for (i, &row) in rows.iter().enumerate() {
            dx[target(row)].copy_from_slice(&dy[target(i)]);
        }
        return;
    }
    // A stable sort brings the terms of a row together in their order, so that they are added before they are rounded.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i]);
    let mut sums = vec![T::Acc::ZERO; width];
    for same in order.chunk_by(|&a, &b| rows[a] == rows[b]) {
        sums.fill(T::Acc::ZERO);
        for &i in same {
            accumulate(&mut sums, &dy[target(i)]);
        }
        for (dx, sum) in dx[target(rows[same[0]])].iter_mut().zip(&sums) {
            *dx = T::from_acc(*sum);
        }
    }
}
