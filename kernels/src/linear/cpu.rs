//! The linear layer on the CPU: three matrix products and a column sum.

use crate::product::{Matrix, Scalar, product};
use bigmac_runtime::{Context, Result};

/// Columns of the bias gradient to a block of work.
const BLOCK_COLUMNS: usize = 256;

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

/// Column sums, each from the first row to the last.
pub(super) fn backward_bias<R: Scalar>(ctx: &Context, dy: &[R], add: bool, db: &mut [R]) {
    let out = db.len();
    ctx.threads().chunks_mut(db, BLOCK_COLUMNS, |i, db| {
        if !add {
            db.fill(R::ZERO);
        }
        for dy in dy.chunks_exact(out) {
            for (db, &dy) in db.iter_mut().zip(&dy[i * BLOCK_COLUMNS..]) {
                *db += dy;
            }
        }
    });
}
