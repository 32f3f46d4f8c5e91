//! The linear layer on the CPU: three matrix products and a column sum.

use crate::numeric::Float;
use crate::product::{Matrix, Scalar, product};
use crate::rows::{accumulate, column_sums};
use bigmac_runtime::{Context, Result};

pub(super) fn forward<R: Scalar>(
    ctx: &Context,
    x: &[R],
    w: &[R],
    b: Option<&[R]>,
    (out, inner): (usize, usize),
    y: &mut [R],
) -> Result<()> {
    if let Some(b) = b {
        y.chunks_exact_mut(out.max(1)).for_each(|y| y.copy_from_slice(b));
    }
    let rows = y.len() / out.max(1);
    let x = Matrix::row_major(x, rows, inner);
    product(ctx, x, Matrix::row_major(w, out, inner).transposed(), b.is_some(), y)
}

pub(super) fn backward_input<R: Scalar>(
    ctx: &Context,
    dy: &[R],
    w: &[R],
    (out, inner): (usize, usize),
    dx: &mut [R],
) -> Result<()> {
    let rows = dx.len() / inner.max(1);
    product(ctx, Matrix::row_major(dy, rows, out), Matrix::row_major(w, out, inner), false, dx)
}

pub(super) fn backward_weight<R: Scalar>(
    ctx: &Context,
    x: &[R],
    dy: &[R],
    (out, inner): (usize, usize),
    add: bool,
    dw: &mut [R],
) -> Result<()> {
    let rows = dy.len() / out.max(1);
    let dy = Matrix::row_major(dy, rows, out).transposed();
    product(ctx, dy, Matrix::row_major(x, rows, inner), add, dw)
}

/// Column sums of dy, in its own dtype.
pub(super) fn backward_bias<T: Float>(ctx: &Context, dy: &[T], add: bool, db: &mut [T::Acc]) {
    let [sums] = column_sums(ctx, [dy], db.len(), |_| (), |(), [dy]| [dy]);
    if add { accumulate(db, &sums) } else { db.copy_from_slice(&sums) }
}
