//! Matrix products, shared by the operators that need one: on a GPU in [`cuda`], and here on slices.
//!
//! Training multiplies matrices of 16 to 700 rows by weights of a few hundred: at these sizes packing, dispatch and
//! allocation cost as much as the arithmetic, so the inner loops (`tile`) read their operands where they lie.

mod convert;
pub mod cuda;
mod matrix;
mod tile;
mod transpose;
mod vector;

#[cfg(test)]
mod tests;

pub(crate) use convert::{rounded, widened};
pub(crate) use matrix::{Matrix, MatrixMut};
pub(crate) use tile::multiply;
pub(crate) use transpose::transpose;
pub(crate) use vector::{Scalar, Vector};

use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

/// Rows of C to a block of work.
const BLOCK_ROWS: usize = 48;

/// Up to this many rows a product with a transposed B is computed as dot products.
const DOT_ROWS: usize = 4;

/// `c = a b`, or `c += a b` when `add`; `c` is row-major without gaps. Its rows are shared among the threads.
///
/// # Errors
/// Those of allocating workspace for a transposed operand.
pub(crate) fn product<R: Scalar>(
    ctx: &Context,
    a: Matrix<'_, R>,
    b: Matrix<'_, R>,
    add: bool,
    c: &mut [R],
) -> Result<()> {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if b.col_stride == 1 || n <= 1 && b.row_stride == 1 {
        by_rows(ctx, a, b, add, c);
        return Ok(());
    }
    if m <= DOT_ROWS && a.col_stride == 1 && b.row_stride == 1 {
        dots(ctx, a, b, add, c);
        return Ok(());
    }
    let workspace = |len: usize| Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[len], R::DTYPE);
    // Either b is transposed, so that its rows can be read as vectors, or a and the result are, when they are smaller.
    if b.row_stride == 1 && m * (k + n) < k * n {
        let mut at = workspace(k * m)?;
        transpose(a, at.as_mut_slice()?);
        let mut ct = workspace(n * m)?;
        by_rows(ctx, b.transposed(), Matrix::row_major(at.as_slice()?, k, m), false, ct.as_mut_slice()?);
        let ct = Matrix::row_major(ct.as_slice::<R>()?, n, m);
        if add {
            let mut sum = workspace(m * n)?;
            transpose(ct, sum.as_mut_slice()?);
            c.iter_mut().zip(sum.as_slice::<R>()?).for_each(|(c, s)| *c += *s);
        } else {
            transpose(ct, c);
        }
        return Ok(());
    }
    let mut rows = workspace(k * n)?;
    transpose(b.transposed(), rows.as_mut_slice()?);
    by_rows(ctx, a, Matrix::row_major(rows.as_slice()?, k, n), add, c);
    Ok(())
}

fn by_rows<R: Scalar>(ctx: &Context, a: Matrix<'_, R>, b: Matrix<'_, R>, add: bool, c: &mut [R]) {
    ctx.threads().chunks_mut(c, BLOCK_ROWS * b.cols, |i, c| {
        let rows = c.len() / b.cols.max(1);
        multiply(a.rows(i * BLOCK_ROWS, rows), b, add, MatrixMut::row_major(c, rows, b.cols));
    });
}

/// Rows of a, and columns of b, both contiguous, multiplied in vectors along k: for so few rows that b is read once.
fn dots<R: Scalar>(ctx: &Context, a: Matrix<'_, R>, b: Matrix<'_, R>, add: bool, c: &mut [R]) {
    /// Columns of C at a time: so many chains of additions hide each other's latency.
    const COLUMNS: usize = 8;
    let lanes = R::Vector::LANES;
    for i in 0..a.rows {
        let x = &a.rows(i, 1).data[..a.cols];
        ctx.threads().chunks_mut(&mut c[i * b.cols..][..b.cols], 64 * COLUMNS, |block, c| {
            for (group, c) in c.chunks_mut(COLUMNS).enumerate() {
                let first = block * 64 * COLUMNS + group * COLUMNS;
                let columns: [&[R]; COLUMNS] = std::array::from_fn(|j| {
                    let column = (first + j).min(b.cols - 1);
                    &b.data[column * b.col_stride..][..b.rows]
                });
                let mut sums = [R::Vector::splat(R::ZERO); COLUMNS];
                for k in (0..a.cols).step_by(lanes) {
                    let count = lanes.min(a.cols - k);
                    // SAFETY: k + count <= a.cols = b.rows, the length of x and of every column.
                    unsafe {
                        let x = R::Vector::load(x.as_ptr().add(k), count);
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = x.mul_add(R::Vector::load(column.as_ptr().add(k), count), *sum);
                        }
                    }
                }
                for (c, sum) in c.iter_mut().zip(sums) {
                    *c = if add { *c + sum.sum() } else { sum.sum() };
                }
            }
        });
    }
}
