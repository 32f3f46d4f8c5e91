//! RMSNorm on the CPU: rows that lie one after the other.

use crate::numeric::{Float, Real};
use crate::rows::{map, rows_per_block, sums};
use bigmac_runtime::Context;

/// `y = x * rstd * w` per row, `rstd = 1 / sqrt(mean(x^2) + eps)`.
pub(super) fn forward<T: Float>(ctx: &Context, x: &[T], w: &[T], eps: f64, y: &mut [T], rstd: &mut [T::Acc]) {
    let width = w.len();
    let rows = rows_per_block(width);
    let (inverse, eps) = (T::Acc::of(1.0 / width as f64), T::Acc::of(eps));
    ctx.threads().chunks2_mut((y, rows * width), (rstd, rows), |block, y, rstd| {
        let x = &x[block * rows * width..][..y.len()];
        for ((x, y), rstd) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd) {
            let [square] = sums([x], |[x]| [x * x]);
            let r = T::Acc::ONE / (square * inverse + eps).sqrt();
            *rstd = r;
            map([x, w], y, |[x, w]| x * r * w);
        }
    });
}

/// `dx = rstd * (w dy - x rstd^2 mean(x w dy))` per row.
pub(super) fn backward_input<T: Float>(
    ctx: &Context,
    x: &[T],
    w: &[T],
    rstd: &[T::Acc],
    dy: &[T],
    dx: &mut [T],
) {
    let width = w.len();
    let rows = rows_per_block(width);
    let inverse = T::Acc::of(1.0 / width as f64);
    ctx.threads().chunks_mut(dx, rows * width, |block, dx| {
        let from = block * rows * width;
        let (x, dy, rstd) = (&x[from..][..dx.len()], &dy[from..][..dx.len()], &rstd[block * rows..]);
        let lines = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &r) in lines.zip(rstd) {
            let [dot] = sums([x, w, dy], |[x, w, dy]| [x * w * dy]);
            let c = dot * inverse * r * r * r;
            map([x, w, dy], dx, |[x, w, dy]| r * (w * dy) - x * c);
        }
    });
}
