//! Rotary embedding on the CPU.

use crate::numeric::{Float, Real};
use crate::rows::rows_per_block;
use bigmac_runtime::Context;

/// Rotates every head of `[T, heads, dim]` by the angles of its token, backwards when `inverse`.
pub(super) fn rotate<T: Float>(
    ctx: &Context,
    x: &[T],
    (cos, sin): (&[T::Acc], &[T::Acc]),
    (heads, dim): (usize, usize),
    (interleaved, inverse): (bool, bool),
    y: &mut [T],
) {
    let (half, width) = (dim / 2, heads * dim);
    let tokens = rows_per_block(width);
    ctx.threads().chunks_mut(y, tokens * width, |block, y| {
        let x = &x[block * tokens * width..][..y.len()];
        let from = block * tokens * half;
        let angles = cos[from..].chunks_exact(half).zip(sin[from..].chunks_exact(half));
        for ((x, y), (cos, sin)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(angles) {
            for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
                match (interleaved, inverse) {
                    (false, false) => halves(x, cos, sin, y, |s| s),
                    (false, true) => halves(x, cos, sin, y, |s| -s),
                    (true, false) => pairs(x, cos, sin, y, |s| s),
                    (true, true) => pairs(x, cos, sin, y, |s| -s),
                }
            }
        }
    });
}

/// Element `i` turns with element `i + dim / 2`.
#[inline(always)]
fn halves<T: Float>(x: &[T], cos: &[T::Acc], sin: &[T::Acc], y: &mut [T], sign: impl Fn(T::Acc) -> T::Acc) {
    let half = cos.len();
    let (low, high) = x.split_at(half);
    let (y_low, y_high) = y.split_at_mut(half);
    let (high, sin, y_high) = (&high[..half], &sin[..half], &mut y_high[..half]);
    for i in 0..half {
        let (a, b, c, s) = (low[i].acc(), high[i].acc(), cos[i], sign(sin[i]));
        y_low[i] = T::from_acc(a * c - b * s);
        y_high[i] = T::from_acc(b.mul_add(c, a * s));
    }
}

/// Element `2 i` turns with element `2 i + 1`.
#[inline(always)]
fn pairs<T: Float>(x: &[T], cos: &[T::Acc], sin: &[T::Acc], y: &mut [T], sign: impl Fn(T::Acc) -> T::Acc) {
    let (x, y) = (x.as_chunks::<2>().0, y.as_chunks_mut::<2>().0);
    for (([a, b], [y_a, y_b]), (&c, &s)) in x.iter().zip(y).zip(cos.iter().zip(sin)) {
        let (a, b, s) = (a.acc(), b.acc(), sign(s));
        *y_a = T::from_acc(a * c - b * s);
        *y_b = T::from_acc(b.mul_add(c, a * s));
    }
}
