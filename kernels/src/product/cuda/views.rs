//! Tensors as factors of products.

use super::Factor;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

impl<'a> Factor<'a> {
    /// A tensor `[.., rows, cols]` where it lies, as a batch of matrices: the first, and the elements from each to the
    /// next. `None` when no line of a matrix is contiguous, or when the leading extents are not evenly spaced.
    pub fn of_matrices(tensor: &'a Tensor) -> Option<(Self, usize)> {
        let (&[rows, cols], leading) = tensor.shape().split_last_chunk::<2>().map(|(l, last)| (last, l))?;
        let (strides, matrix) = tensor.strides().split_at(leading.len());
        let (_, stride) = evenly_spaced(leading, strides)?;
        Some((Factor::strided(tensor, (rows, cols), (matrix[0], matrix[1]))?, stride))
    }

    /// A tensor `[.., cols]` where it lies, as one matrix of all its rows; `None` as [`Factor::of_matrices`].
    pub fn of_rows(tensor: &'a Tensor) -> Option<Self> {
        let (&cols, leading) = tensor.shape().split_last()?;
        let (&along, strides) = tensor.strides().split_last()?;
        let (rows, stride) = evenly_spaced(leading, strides)?;
        Factor::strided(tensor, (rows, cols), (stride, along))
    }

    /// Element (i, j) at `i * row_stride + j * col_stride`, of which one is 1 wherever it matters.
    fn strided(
        tensor: &'a Tensor,
        (rows, cols): (usize, usize),
        (row_stride, col_stride): (usize, usize),
    ) -> Option<Self> {
        let by_columns = col_stride != 1 && (rows <= 1 || row_stride == 1);
        if by_columns {
            return Some(Factor { leading: col_stride, transposed: true, ..Factor::new(tensor, rows, cols) });
        }
        let by_rows = cols <= 1 || col_stride == 1;
        by_rows.then_some(Factor { leading: row_stride, ..Factor::new(tensor, rows, cols) })
    }
}

/// Extents that are evenly spaced in memory as one: their number and the elements from each to the next.
fn evenly_spaced(extents: &[usize], strides: &[usize]) -> Option<(usize, usize)> {
    let count = extents.iter().product();
    let mut dimensions = extents.iter().zip(strides).rev().filter(|(n, _)| **n != 1);
    let Some((&n, &stride)) = dimensions.next().filter(|_| count > 0) else { return Some((count, 0)) };
    let even = dimensions.try_fold(n * stride, |next, (&n, &stride)| (stride == next).then_some(n * stride));
    even.map(|_| (count, stride))
}

/// Calls `f` with the rows of a tensor `[.., cols]`: where they lie or, when no kernel can read them there, copied to
/// the workspace.
///
/// # Errors
/// Those of `f` and of copying.
pub fn with_rows<R>(ctx: &Context, tensor: &Tensor, f: impl FnOnce(Factor<'_>) -> Result<R>) -> Result<R> {
    if let Some(rows) = Factor::of_rows(tensor) {
        return f(rows);
    }
    let copy = tensor.copy(&ctx.in_scope(scopes::WORKSPACE))?;
    let (cols, leading) = copy.shape().split_last().map_or((1, &[][..]), |(&cols, leading)| (cols, leading));
    f(Factor::new(&copy, leading.iter().product(), cols))
}

/// Calls `f` with the matrices of a tensor `[.., rows, cols]`, as [`with_rows`]: the first, and the elements from each
/// to the next.
///
/// # Errors
/// Those of `f` and of copying.
pub fn with_matrices<R>(
    ctx: &Context,
    tensor: &Tensor,
    f: impl FnOnce(Factor<'_>, usize) -> Result<R>,
) -> Result<R> {
    if let Some((first, stride)) = Factor::of_matrices(tensor) {
        return f(first, stride);
    }
    let copy = tensor.copy(&ctx.in_scope(scopes::WORKSPACE))?;
    let (rows, cols) = copy.shape().last_chunk::<2>().map_or((1, 1), |&[rows, cols]| (rows, cols));
    f(Factor::new(&copy, rows, cols), rows * cols)
}
