//! Layer normalisation on the CPU: rows that lie one after the other, scaled by `offset + w`.
//!
//! `statistics` holds mean and `1 / sqrt(variance + eps)` of each row, side by side.

use crate::numeric::{Float, Real};
use crate::rows::{map, rows_per_block, sums};
use bigmac_runtime::Context;

/// `y = (x - mean) * rstd * (offset + w) + b` per row. The variance is that of the row minus its mean, so that a
/// mean far from 0 cancels nothing.
pub(super) fn forward<T: Float>(
    ctx: &Context,
    x: &[T],
    (offset, w, b): (T::Acc, &[T], &[T]),
    eps: f64,
    y: &mut [T],
    statistics: &mut [T::Acc],
) {
    let width = w.len();
    let rows = rows_per_block(width);
    let (inverse, eps) = (T::Acc::of(1.0 / width as f64), T::Acc::of(eps));
    ctx.threads().chunks2_mut((y, rows * width), (statistics, 2 * rows), |block, y, statistics| {
        let x = &x[block * rows * width..][..y.len()];
        let statistics = statistics.as_chunks_mut::<2>().0;
        for ((x, y), statistics) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(statistics) {
            let [sum] = sums([x], |[x]| [x]);
            let mean = sum * inverse;
            let [square] = sums([x], |[x]| [(x - mean) * (x - mean)]);
            let rstd = T::Acc::ONE / (square * inverse + eps).sqrt();
            *statistics = [mean, rstd];
            map([x, w, b], y, |[x, w, b]| ((x - mean) * rstd).mul_add(offset + w, b));
        }
    });
}

/// `dx = rstd * (g - mean(g) - n mean(g n))` per row, with `n = (x - mean) rstd` and `g = (offset + w) dy`.
pub(super) fn backward_input<T: Float>(
    ctx: &Context,
    x: &[T],
    (offset, w): (T::Acc, &[T]),
    statistics: &[T::Acc],
    dy: &[T],
    dx: &mut [T],
) {
    let width = w.len();
    let rows = rows_per_block(width);
    let inverse = T::Acc::of(1.0 / width as f64);
    let statistics = statistics.as_chunks::<2>().0;
    ctx.threads().chunks_mut(dx, rows * width, |block, dx| {
        let from = block * rows * width;
        let (x, dy) = (&x[from..][..dx.len()], &dy[from..][..dx.len()]);
        let lines = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &[mean, rstd]) in lines.zip(&statistics[block * rows..]) {
            let [sum, dot] = sums([x, w, dy], |[x, w, dy]| {
                let g = (offset + w) * dy;
                [g, g * (x - mean)]
            });
            let (sum, dot) = (sum * inverse, dot * inverse * rstd * rstd);
            map([x, w, dy], dx, |[x, w, dy]| rstd * ((offset + w) * dy - sum - (x - mean) * dot));
        }
    });
}
